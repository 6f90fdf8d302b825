package manifest

import (
	"fmt"
	"strings"
)

// maxLinkHops is how many links one may lead through; Linux gives up there too.
const maxLinkHops = 40

// A linkResolver finds out where the symbolic links of a share lead to, through
// each other. Each link is resolved once, so the work is bounded by the length of
// all targets.
type linkResolver struct {
	links map[string]*link // by path
}

type link struct {
	target string
	state  uint8  // 0: not begun
	at     string // the path it leads to, if resolved
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
	if r.links == nil {
		r.links = make(map[string]*link)
	}
	r.links[path] = &link{target: target}
}

// check returns why the link at path is refused, or "".
func (r *linkResolver) check(path string) string {
	l := r.links[path]
	r.resolve(path, l, 0)
	return l.why
}

func (r *linkResolver) resolve(path string, l *link, depth int) {
	switch {
	case l.state == linkDone:
		return
	case l.state == linkResolving || depth > maxLinkHops:
		return
	}
	l.state = linkResolving
	l.hops = 1
	l.why = r.walk(path, l, depth)
	l.state = linkDone
	if l.why == tooDeep && depth > 0 {
		// The link that the caller began with is too far away; this one may be fine.
		l.state, l.why = 0, ""
	}
}

func (r *linkResolver) walk(path string, l *link, depth int) string {
	if why := checkTarget(l.target); why != "" {
		return why
	}
	dir := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	// Some systems resolve ".." by the text alone, others by where they are: both
	// ways must stay inside.
	at, text := dir, dir
	for rest, more := l.target, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			var ok1, ok2 bool
			at, ok1 = parent(at)
			text, ok2 = parent(text)
			if !ok1 || !ok2 {
				return "leads out of the share"
			}
			continue
		}
		at, text = join(at, name), join(text, name)
		if len(at) > MaxPath || len(text) > MaxPath {
			return fmt.Sprintf("leads to a path of more than %d bytes", MaxPath)
		}
		next, ok := r.links[at]
		if !ok {
			continue
		}
		r.resolve(at, next, depth+1)
		switch {
		case next.state == linkResolving:
			return "goes round in a circle"
		case next.state != linkDone:
			return tooDeep
		case strings.HasPrefix(next.why, through):
			return next.why
		case next.why != "":
			return through + next.why
		}
		if l.hops += next.hops; l.hops > maxLinkHops {
			return tooDeep
		}
		at = next.at
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
