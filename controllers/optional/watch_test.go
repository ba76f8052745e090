package optional

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
)

// TestMain takes the pause between errors away: it is one for all tests, whose clocks differ.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil
	goleak.VerifyTestMain(m)
}

var resource = Resource{Group: "example.com", Plural: "widgets", Kind: "Widget",
	Versions: []string{"v2", "v1"}}

// memory is a Store.
type memory struct {
	objects map[string]string // the version of each
	why     error             // nil: it is complete
	lists   int
}

func (m *memory) Add(in any) error {
	object := in.(*unstructured.Unstructured)
	m.objects[object.GetName()] = object.GroupVersionKind().Version
	return nil
}

func (m *memory) Update(in any) error { return m.Add(in) }

func (m *memory) Delete(in any) error {
	delete(m.objects, in.(*unstructured.Unstructured).GetName())
	return nil
}

func (m *memory) Replace(list []any, _ string) error {
	clear(m.objects)
	m.lists++
	for _, in := range list {
		if err := m.Add(in); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Resync() error        { return nil }
func (m *memory) Incomplete(why error) { m.why = why }
func (m *memory) Complete()            { m.why = nil }

// server is an API server that has definitions, and objects in each version.
type server struct {
	t           *testing.T
	definitions *cachetesting.FakeControllerSource
	objects     map[string]*cachetesting.FakeControllerSource
	memory      *memory
	left        int // how often the objects weren't followed any more
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, definitions: cachetesting.NewFakeControllerSource(),
		objects: map[string]*cachetesting.FakeControllerSource{},
		memory:  &memory{objects: map[string]string{}}}
	for _, version := range resource.Versions {
		s.objects[version] = cachetesting.NewFakeControllerSource()
	}
	return s
}

// run follows until the test's bubble ends.
func (s *server) run(ctx context.Context) {
	w := &Watch{Resource: resource, Definitions: s.definitions, Store: s.memory,
		Log:       testr.New(s.t),
		Unwatched: func() { s.left++ },
		Objects:   func(version string) cache.ListerWatcher { return s.objects[version] }}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
		s.definitions.Broadcaster.Shutdown()
		for _, objects := range s.objects {
			objects.Broadcaster.Shutdown()
		}
	})
}

// expect waits until nothing happens any more, longer than any pause after an error, and looks what
// is known. An object is "name@version"; why is a part of why that isn't all.
func (s *server) expect(why string, objects ...string) {
	s.t.Helper()
	<-time.After(2 * time.Minute) // by the bubble's clock
	synctest.Wait()
	var got []string
	for name, version := range s.memory.objects {
		got = append(got, name+"@"+version)
	}
	slices.Sort(got)
	if !slices.Equal(got, objects) {
		s.t.Errorf("has %v, expected %v", got, objects)
	}
	switch {
	case why == "" && s.memory.why != nil:
		s.t.Errorf("incomplete: %v", s.memory.why)
	case why != "" && (s.memory.why == nil || !strings.Contains(s.memory.why.Error(), why)):
		s.t.Errorf("incomplete because of %v, expected %q", s.memory.why, why)
	}
}

func (s *server) put(name string) {
	for version, objects := range s.objects {
		objects.Add(widget(name, version))
	}
}

func (s *server) remove(name string) {
	for version, objects := range s.objects {
		objects.Delete(widget(name, version))
	}
}

func widget(name, version string) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetGroupVersionKind(resource.kind(version))
	out.SetName(name)
	return out
}

// definition serves some versions, and not one more. Its UID is a text without meaning.
func definition(uid string, served ...string) *unstructured.Unstructured {
	versions := []any{map[string]any{"name": "v0", "served": false}}
	for _, name := range served {
		versions = append(versions, map[string]any{"name": name, "served": true})
	}
	out := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": resource.Definition(), "uid": uid},
		"spec":     map[string]any{"versions": versions, "scope": "Cluster"},
	}}
	return with(out, "NamesAccepted", "Established")
}

// with gives a definition these conditions, and no others.
func with(definition *unstructured.Unstructured, holds ...string) *unstructured.Unstructured {
	var conditions []any
	for _, condition := range []string{"NamesAccepted", "Established"} {
		status := "False"
		if slices.Contains(holds, condition) {
			status = "True"
		}
		conditions = append(conditions, map[string]any{"type": condition, "status": status})
	}
	definition.Object["status"] = map[string]any{"conditions": conditions}
	return definition
}

// TestWatch: the store has what the API server has, and knows whether that is all, whatever becomes
// of the definition.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(ctx context.Context, s *server){
		"none at the start, then it comes and goes": func(ctx context.Context, s *server) {
			s.run(ctx)
			s.expect("")
			s.definitions.Add(definition("1", "v1"))
			s.expect("")
			s.put("a")
			s.put("b")
			s.remove("a")
			s.expect("", "b@v1")
			s.definitions.Delete(definition("1", "v1"))
			s.expect("")
			if s.left != 1 {
				s.t.Errorf("told %d times that nothing is followed, expected once", s.left)
			}
		},
		"there at the start": func(ctx context.Context, s *server) {
			s.put("a")
			s.definitions.Add(definition("1", "v1", "v2"))
			s.run(ctx)
			s.expect("", "a@v2")
		},
		"of something else": func(ctx context.Context, s *server) {
			s.put("a")
			other := definition("1", "v1")
			other.SetName("gadgets.example.com")
			s.definitions.Add(other.DeepCopy())
			s.run(ctx)
			s.expect("")
			s.definitions.Add(definition("2", "v1"))
			s.expect("", "a@v1")
			s.definitions.Modify(other.DeepCopy())
			s.definitions.Delete(other.DeepCopy())
			s.expect("", "a@v1")
		},
		"not established, then it is, and stays so": func(ctx context.Context, s *server) {
			s.definitions.Add(with(definition("1", "v2")))
			s.run(ctx)
			s.put("a")
			s.expect("") // its names are another's
			s.definitions.Modify(with(definition("1", "v2"), "NamesAccepted"))
			s.expect("is being installed")
			s.definitions.Modify(definition("1", "v2"))
			s.expect("", "a@v2")
			s.definitions.Modify(with(definition("1", "v2")))
			s.expect("", "a@v2")
			s.definitions.Modify(definition("1", "v3"))
			s.definitions.Modify(with(definition("1", "v3")))
			s.expect("serves [v3]", "a@v2")
			s.definitions.Delete(definition("1", "v3"))
			s.expect("")
		},
		"of another shape": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v2"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v2")
			odd := definition("1", "v2")
			odd.Object["spec"] = "none"
			s.definitions.Modify(odd)
			s.expect("can't be read here", "a@v2")
			s.definitions.Modify(definition("1", "v2"))
			s.expect("", "a@v2")
			namespaced := definition("1", "v2")
			namespaced.Object["spec"].(map[string]any)["scope"] = "Namespaced"
			s.definitions.Modify(namespaced)
			s.expect(`scope "Namespaced", expected "Cluster"`, "a@v2")
		},
		"another generation": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v2"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v2")
			s.objects["v2"].AddDropWatch(widget("b", "v2")) // it wasn't let through before
			next := definition("1", "v2")
			next.SetGeneration(2)
			s.definitions.Modify(next)
			s.expect("", "a@v2", "b@v2")
		},
		"objects that can't be listed any more": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v2"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v2")
			s.objects["v2"].ListError = apierrors.NewNotFound(schema.GroupResource{}, "")
			s.objects["v2"].ResetWatch()
			s.expect("", "a@v2") // as it was when the API server was last heard
		},
		"a better version comes": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v1"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v1")
			s.definitions.Modify(definition("1", "v1", "v2"))
			s.expect("", "a@v2")
			lists := s.memory.lists
			s.definitions.Modify(definition("1", "v2")) // the other one went
			s.expect("", "a@v2")
			if s.memory.lists != lists {
				s.t.Error("they are listed again, in the same version")
			}
		},
		"no known version: what was known stays": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v2"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v2")
			s.definitions.Modify(definition("1", "v3", "v4"))
			s.expect("widgets.example.com serves [v3, v4], expected v2 or v1", "a@v2")
			if !errors.Is(s.memory.why, ErrUnreadable) {
				s.t.Errorf("%v isn't %v", s.memory.why, ErrUnreadable)
			}
			s.definitions.Modify(definition("1", "v3", "v1"))
			s.expect("", "a@v1")
		},
		"made anew": func(ctx context.Context, s *server) {
			s.definitions.Add(definition("1", "v2"))
			s.put("a")
			s.run(ctx)
			s.expect("", "a@v2")
			s.definitions.DeleteDropWatch(definition("1", "v2"))
			s.objects["v2"].DeleteDropWatch(widget("a", "v2"))
			s.definitions.AddDropWatch(definition("2", "v2"))
			s.definitions.ResetWatch()
			s.expect("")
		},
		"objects that can't be listed": func(ctx context.Context, s *server) {
			s.put("a")
			s.objects["v2"].ListError = apierrors.NewNotFound(schema.GroupResource{}, "")
			s.definitions.Add(definition("1", "v2"))
			s.run(ctx)
			s.expect("not listed yet")
			s.definitions.Delete(definition("1", "v2"))
			s.expect("")
		},
		"definitions that can't be listed": func(ctx context.Context, s *server) {
			s.definitions.ListError = apierrors.NewForbidden(schema.GroupResource{}, "", nil)
			s.run(ctx)
			s.expect("wasn't asked yet")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				play(t.Context(), newServer(t))
			})
		})
	}
}

// TestServed: which version is followed.
func TestServed(t *testing.T) {
	t.Parallel()
	d := definitions{&follower{watch: &Watch{Resource: resource}}}
	for in, want := range map[*unstructured.Unstructured]string{
		definition("1", "v1"):             "v1",
		definition("1", "v1", "v2", "v3"): "v2",
	} {
		read, err := d.read(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := resource.served(read, false); got != want || err != nil {
			t.Errorf("%v: %q, %v, expected %q", in, got, err, want)
		}
	}
}
