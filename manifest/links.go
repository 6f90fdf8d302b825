package manifest

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strings"
)

// maxLinkHops is how many links one may lead through; Linux gives up there too.
const maxLinkHops = 40

// A linkResolver finds out where the symbolic links of a share lead to, through
// each other. Each link is resolved once, and a step costs no more than the length
// of a name, so the work is bounded by the length of all targets.
//
// It knows the links and the directories above them, as a tree of folded names: a
// system that ignores case follows a link by any spelling. Of a name it keeps a hash,
// which nobody can foresee, so that a million links need some 100 bytes each.
type linkResolver struct {
	nodes []linkNode
	links []link
	child map[childName]int32
	whys  []string          // why links are refused; the first is ""
	why   map[string]uint32 // index in whys
	seeds [2]maphash.Seed
	fold  folding
	buf   []byte
	dir   string // of the link that was added last,
	node  int32  // and its node
}

// A linkNode is a link, or a directory above one. Node 0 is the share's top.
type linkNode struct {
	parent int32
	link   int32 // index in links; -1 for a directory
}

// A childName is a hash of the parent's number and the folded name.
type childName [16]byte

// A place is a node, or what is beneath it where there are no links: depth is how
// many components further down.
type place struct{ node, depth int32 }

type link struct {
	target string
	at     place  // where it leads to, if resolved
	why    uint32 // why it is refused, if it is: index in whys
	state  uint8  // 0: not begun
	hops   uint8  // links on the way, itself included
}

const (
	linkResolving = 1
	linkDone      = 2

	through = "leads through a link that "
	tooDeep = "leads through more than 40 links"
)

// newLinkResolver returns a resolver of the links among entries, or nil if there is none.
func newLinkResolver(entries []Entry) *linkResolver {
	num := countLinks(entries)
	if num == 0 {
		return nil
	}
	r := &linkResolver{
		nodes: make([]linkNode, 1, num+1),
		links: make([]link, 0, num),
		child: make(map[childName]int32),
		whys:  []string{""},
		why:   map[string]uint32{"": 0},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	r.nodes[0].link = -1
	for i := range entries {
		if e := &entries[i]; e.Kind == Symlink {
			r.add(e.Path, e.Target)
		}
	}
	return r
}

func (r *linkResolver) add(path, target string) {
	dir, _ := parent(path)
	if dir != r.dir {
		r.dir, r.node = dir, 0
		for name := range strings.SplitSeq(dir, "/") {
			if dir != "" {
				r.node = r.descend(r.node, name)
			}
		}
	}
	r.nodes[r.descend(r.node, base(path))].link = int32(len(r.links))
	r.links = append(r.links, link{target: target})
}

// key returns what name beneath node is found by.
func (r *linkResolver) key(node int32, name string) (k childName) {
	r.buf = binary.LittleEndian.AppendUint32(r.buf[:0], uint32(node))
	r.buf = r.fold.append(r.buf, name)
	for i, seed := range r.seeds {
		binary.LittleEndian.PutUint64(k[8*i:], maphash.Bytes(seed, r.buf))
	}
	return k
}

// descend returns the node of name beneath node, and makes it if there is none.
func (r *linkResolver) descend(node int32, name string) int32 {
	key := r.key(node, name)
	n, ok := r.child[key]
	if !ok {
		n = int32(len(r.nodes))
		r.nodes = append(r.nodes, linkNode{parent: node, link: -1})
		r.child[key] = n
	}
	return n
}

// linkAt returns the link that node is, or nil.
func (r *linkResolver) linkAt(node int32) *link {
	if i := r.nodes[node].link; i >= 0 {
		return &r.links[i]
	}
	return nil
}

// check returns why the link at path is refused, or "".
func (r *linkResolver) check(path string) string {
	node := int32(0)
	for name := range strings.SplitSeq(path, "/") {
		node = r.child[r.key(node, name)]
	}
	r.resolve(node, 0)
	return r.whys[r.linkAt(node).why]
}

// refuse notes why l is refused.
func (r *linkResolver) refuse(l *link, why string) {
	i, ok := r.why[why]
	if !ok {
		i = uint32(len(r.whys))
		r.whys = append(r.whys, why)
		r.why[why] = i
	}
	l.why = i
}

func (r *linkResolver) resolve(node int32, hops int) {
	l := r.linkAt(node)
	if l.state != 0 || hops > maxLinkHops {
		return
	}
	l.state = linkResolving
	l.hops = 1
	why := r.walk(node, l, hops)
	l.state = linkDone
	if why == tooDeep && hops > 0 {
		// The link that the caller began with is too far away; this one may be fine.
		l.state, why = 0, ""
	}
	r.refuse(l, why)
}

func (r *linkResolver) walk(node int32, l *link, hops int) string {
	if why := checkTarget(l.target); why != "" {
		return why
	}
	// Some systems resolve ".." by where they are, others by the text alone: both
	// ways must stay inside. For the second the depth is enough.
	at := place{node: r.nodes[node].parent}
	text := 0
	for n := at.node; n != 0; n = r.nodes[n].parent {
		text++
	}
	for rest, more := l.target, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			if text--; text < 0 || at == (place{}) {
				return "leads out of the share"
			}
			if at.depth > 0 {
				at.depth--
			} else {
				at.node = r.nodes[at.node].parent
			}
			continue
		}
		text++
		next, ok := r.child[r.key(at.node, name)]
		if at.depth > 0 || !ok {
			at.depth++
			continue
		}
		at.node = next
		via := r.linkAt(next)
		if via == nil {
			continue
		}
		r.resolve(next, hops+1)
		switch {
		case via.state == linkResolving:
			return "goes round in a circle"
		case via.state != linkDone:
			return tooDeep
		case strings.HasPrefix(r.whys[via.why], through):
			return r.whys[via.why]
		case via.why != 0:
			return through + r.whys[via.why]
		}
		if l.hops += via.hops; l.hops > maxLinkHops { // each has maxLinkHops at most
			return tooDeep
		}
		at = via.at
	}
	l.at = at
	return ""
}

// checkTarget returns why no link may have this target, whatever else the share
// holds, or "".
func checkTarget(target string) string {
	switch {
	case target == "":
		return "has no target"
	case len(target) > MaxPath:
		return fmt.Sprintf("has a target of %d bytes, the limit is %d", len(target), MaxPath)
	case target[0] == '/':
		return "leads to an absolute path"
	}
	if why := checkText(target); why != "" {
		return "has a target that " + why
	}
	if why := checkFirst(target); why != "" && target != "~" {
		return "has a target that " + why
	}
	return ""
}

// parent returns the directory that holds path, and false for the top.
func parent(path string) (string, bool) {
	if path == "" {
		return "", false
	}
	return path[:max(strings.LastIndexByte(path, '/'), 0)], true
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// checkPortableTarget returns why Windows or macOS would not take target, or "".
func checkPortableTarget(target string) string {
	for name := range strings.SplitSeq(target, "/") {
		if name == "" || name == "." || name == ".." {
			continue
		}
		if why := checkPortable(name); why != "" {
			return fmt.Sprintf("is a link to %s, a part of which %s", quote(target), why)
		}
	}
	return ""
}
