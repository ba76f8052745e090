package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// step is an Item whose changes fail at will, and are noted.
type step struct {
	name string
	err  error
	done *[]string
}

func (s step) Kind() Kind     { return KindRoute }
func (s step) Key() string    { return s.name }
func (s step) Device() string { return s.name }
func (s step) Add() string    { return "add " + s.name }
func (s step) Remove() string { return "remove " + s.name }
func (s step) Put(*Kernel, []Item) error {
	*s.done = append(*s.done, s.Add())
	return s.err
}

func (s step) Drop(*Kernel) error {
	*s.done = append(*s.done, s.Remove())
	return s.err
}

func TestApply(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	for name, c := range map[string]struct {
		ops  func(item func(string, error) Item) []Op
		turn func(Op, func()) bool
		want string
		err  string
	}{
		"in order": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{{Next: item("a", nil)}, {Now: []Item{item("b", nil)}}}
			},
			want: "add a, remove b",
		},
		"several are there": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{{Now: []Item{item("a", nil), item("b", nil)}, Next: item("c", nil)}}
			},
			want: "remove a, remove b, add c",
		},
		"what is replaced stays until then": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{{Now: []Item{item("a", nil)}, Next: item("b", nil)}}
			},
			want: "add b",
		},
		"nothing to remove": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{{Now: []Item{item("a", unix.ESRCH)}}}
			},
			want: "remove a",
		},
		"the rest of a group is left out": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{
					{Next: item("a", bad), Group: "1"}, {Next: item("b", nil), Group: "1"},
					{Next: item("c", nil), Group: "2"}, {Next: item("d", bad)},
					{Next: item("e", nil)},
				}
			},
			want: "add a, add c, add d, add e", err: "add a: bad\nadd d: bad",
		},
		"many fail": {
			ops: func(item func(string, error) Item) (ops []Op) {
				for i := range 7 {
					ops = append(ops, Op{Next: item(fmt.Sprint(i), bad)})
				}
				return ops
			},
			want: "add 0, add 1, add 2, add 3, add 4, add 5, add 6",
			err:  "add 0: bad\nadd 1: bad\nadd 2: bad\nadd 3: bad\nadd 4: bad\nand 2 more failed",
		},
		"not wanted any more": {
			ops: func(item func(string, error) Item) []Op {
				return []Op{{Next: item("a", nil)}, {Next: item("b", nil)}, {Next: item("c", nil)}}
			},
			turn: func(op Op, change func()) bool {
				if op.Device() == "b" {
					return false
				}
				change()
				return true
			},
			want: "add a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var done []string
			ops := c.ops(func(name string, err error) Item { return step{name, err, &done} })
			err := (&Kernel{}).Apply(ops, c.turn)
			if got := strings.Join(done, ", "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(err); got != c.err && (err != nil || c.err != "") {
				t.Errorf("got error %s, want %s", got, c.err)
			}
		})
	}
}

// A dump that is interrupted is repeated, and never half of one returned.
func TestWhole(t *testing.T) {
	t.Parallel()
	calls := 0
	all, err := Whole("things", func() ([]int, error) {
		if calls++; calls < 4 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || !slices.Equal(all, []int{1, 2}) {
		t.Errorf("got %v, %v", all, err)
	}
	all, err = Whole("things", func() ([]int, error) {
		return []int{1}, netlink.ErrDumpInterrupted
	})
	if !errors.Is(err, netlink.ErrDumpInterrupted) || all != nil ||
		!strings.Contains(err.Error(), "listing things") {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestConverge(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	for name, c := range map[string]struct {
		rounds []error // of each round; the last one is settled
		want   string
	}{
		"at once":          {[]error{nil}, ""},
		"the third time":   {[]error{nil, bad, nil}, ""},
		"it can't":         {[]error{nil, bad}, "bad"},
		"somebody opposes": {make([]error, 100), "doesn't stay as set"},
	} {
		i := 0
		err := Converge(func() (bool, error) { i++; return i == len(c.rounds), c.rounds[i-1] })
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
