// Package optional follows the objects of a custom resource that the API server may not have.
//
// # Model
//
// A Watch follows the CustomResourceDefinition of a Resource, which may come, change and go at any
// time. While that serves a version that is known here, the Watch follows the objects, and puts
// them into a Store as a reflector of client-go does. The Store hears whether it has all objects
// that may exist:
//
//	no definition, or one that was refused            there are no objects: the Store has all
//	one that is being installed                       not all
//	one that serves a known version                   all, once they are listed
//	one that can't be read, or serves others only     not all: what the Store has stays
//
// # Not for
//
// What the objects mean: they come as *unstructured.Unstructured, of any shape.
package optional
