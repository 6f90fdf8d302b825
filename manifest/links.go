package manifest

import (
	"fmt"
	"strings"
)

// maxLinkHops is how many links one may lead through; Linux gives up there too.
const maxLinkHops = 40

// A linkResolver finds out where the symbolic links of a share lead to, through
// each other. Each link is resolved once, and a step costs no more than the length
// of a name, so the work is bounded by the length of all targets.
//
// It knows the links and the directories above them, as a tree of folded names: a
// system that ignores case follows a link by any spelling.
type linkResolver struct {
	nodes []linkNode
	child map[childName]int32
	dir   string // of the link that was added last,
	node  int32  // and its node
}

// A linkNode is a link, or a directory above one. Node 0 is the share's top.
type linkNode struct {
	parent int32
	link   *link // nil for a directory
}

type childName struct {
	parent int32
	name   string // folded
}

// A place is a node, or what is beneath it where there are no links: depth is how
// many components further down.
type place struct{ node, depth int32 }

type link struct {
	target string
	state  uint8  // 0: not begun
	at     place  // where it leads to, if resolved
	hops   int    // links on the way, itself included
	why    string // why it is refused, if it is
}

const (
	linkResolving = 1
	linkDone      = 2

	through = "leads through a link that "
	tooDeep = "leads through more than 40 links"
)

// add tells the resolver of a link. All are added before the first check.
func (r *linkResolver) add(path, target string) {
	if r.nodes == nil {
		r.nodes = []linkNode{{}}
		r.child = make(map[childName]int32)
	}
	dir, _ := parent(path)
	if dir != r.dir {
		r.dir, r.node = dir, 0
		for name := range strings.SplitSeq(dir, "/") {
			if dir != "" {
				r.node = r.descend(r.node, name)
			}
		}
	}
	r.nodes[r.descend(r.node, base(path))].link = &link{target: target}
}

// descend returns the node of name beneath node, and makes it if there is none.
func (r *linkResolver) descend(node int32, name string) int32 {
	key := childName{node, fold(name)}
	n, ok := r.child[key]
	if !ok {
		n = int32(len(r.nodes))
		r.nodes = append(r.nodes, linkNode{parent: node})
		r.child[key] = n
	}
	return n
}

// empty reports whether there are no links.
func (r *linkResolver) empty() bool { return r.nodes == nil }

// check returns why the link at path, which was added, is refused, or "".
func (r *linkResolver) check(path string) string {
	node := int32(0)
	for name := range strings.SplitSeq(path, "/") {
		node = r.child[childName{node, fold(name)}]
	}
	l := r.nodes[node].link
	r.resolve(node, 0)
	return l.why
}

func (r *linkResolver) resolve(node int32, hops int) {
	l := r.nodes[node].link
	if l.state != 0 || hops > maxLinkHops {
		return
	}
	l.state = linkResolving
	l.hops = 1
	l.why = r.walk(node, l, hops)
	l.state = linkDone
	if l.why == tooDeep && hops > 0 {
		// The link that the caller began with is too far away; this one may be fine.
		l.state, l.why = 0, ""
	}
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
		next, ok := r.child[childName{at.node, fold(name)}]
		if at.depth > 0 || !ok {
			at.depth++
			continue
		}
		at.node = next
		via := r.nodes[next].link
		if via == nil {
			continue
		}
		r.resolve(next, hops+1)
		switch {
		case via.state == linkResolving:
			return "goes round in a circle"
		case via.state != linkDone:
			return tooDeep
		case strings.HasPrefix(via.why, through):
			return via.why
		case via.why != "":
			return through + via.why
		}
		if l.hops += via.hops; l.hops > maxLinkHops {
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
