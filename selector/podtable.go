package selector

// podTable holds pods by number. They stay where they are in memory.
type podTable struct {
	blocks []*podBlock // nil where there is no pod
	count  int
}

// podBlock has room for few pods, as an index may have few of all numbers.
type podBlock struct {
	pods  [perBlock]pod
	count int
}

// perBlock makes a block 4 KiB with what Go adds, a size that its memory comes in.
const perBlock = 72

// get returns the pod of a number, nil if there is none.
func (t *podTable) get(n Number) *pod {
	if int(n/perBlock) >= len(t.blocks) || t.blocks[n/perBlock] == nil {
		return nil
	}
	if p := &t.blocks[n/perBlock].pods[n%perBlock]; p.ns != nil {
		return p
	}
	return nil
}

// add makes the pod of a number that has none, in a namespace.
func (t *podTable) add(n Number, ns *namespace) *pod {
	for int(n/perBlock) >= len(t.blocks) {
		t.blocks = append(t.blocks, nil)
	}
	block := t.blocks[n/perBlock]
	if block == nil {
		block = new(podBlock)
		t.blocks[n/perBlock] = block
	}
	p := &block.pods[n%perBlock]
	p.ns = ns
	block.count++
	t.count++
	return p
}

// remove forgets the pod of a number that has one.
func (t *podTable) remove(n Number) {
	block := t.blocks[n/perBlock]
	block.pods[n%perBlock] = pod{}
	t.count--
	if block.count--; block.count == 0 {
		t.blocks[n/perBlock] = nil
	}
}
