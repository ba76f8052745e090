// Command image writes container images from files on this machine, without a container runtime, a
// registry or root:
//
//	# one image for one platform
//	image -output FILE.tar -tag NAME:TAG -arch ARCH [flags] SRC=/dest …
//	# several of them as one multi-platform image
//	image index -layout DIR -tag NAME:TAG FILE.tar …
//	# what Go binaries were made of
//	image sbom -output FILE.json -name NAME -version VERSION BINARY …
//
// An image has one layer, which holds the given files and folders and nothing else. The same files
// give the same bytes: entries are sorted, belong to 0:0, and have the time of SOURCE_DATE_EPOCH
// (seconds; 1970 without it), and so has the image. Contents, permission bits and symbolic links
// are kept; extended attributes aren't, and hard links become files of their own.
//
// FILE.tar is what "docker save" writes: "docker load", "kind load image-archive" and "ctr images
// import" take it. DIR is an OCI layout, which crane, skopeo and oras push.
package main
