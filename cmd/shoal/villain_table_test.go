package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// always is a behaviour that says that it has all and answers wants with f.
func always(f func(c *badConn, i int) bool) func(*badConn) {
	return func(c *badConn) {
		c.sayf("have all\n")
		c.wants(func(i int) bool { return f(c, i) })
	}
}

// manifestFirst answers for the manifest rightly, and leaves chunks to f.
func manifestFirst(f func(c *badConn, i int) bool) func(*badConn) {
	return always(func(c *badConn, i int) bool {
		if i < 0 {
			return c.right(i)
		}
		return f(c, i)
	})
}

// says is a behaviour that sends one text and waits for what comes.
func says(text string) func(*badConn) {
	return func(c *badConn) {
		if c.sayf("%s", text) {
			c.hang()
		}
	}
}

// floods is a behaviour that sends a text again and again, and reads meanwhile.
func floods(text string) func(*badConn) {
	p := bytes.Repeat([]byte(text), max(1, 8<<10/len(text)))
	return func(c *badConn) {
		go c.hang() // ends with the connection
		for n := 0; n < 64<<20; n += len(p) {
			if _, err := c.tc.Write(p); err != nil {
				return
			}
		}
		c.hold()
	}
}

// wire is a behaviour that answers a connection with bytes that are no handshake.
func wire(p []byte) func(*badConn) {
	return func(c *badConn) {
		_, _ = c.nc.Write(p) // it may be gone
		_, _ = io.Copy(io.Discard, c.nc)
	}
}

// behaviours are the hostile peers that each test of this kind goes through.
var behaviours = []behaviour{
	// Those that are no peers at all.
	{id: "W02", name: "HTTP", raw: wire([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))},
	{id: "W02", name: "SSH", raw: wire([]byte("SSH-2.0-OpenSSH_9.9\r\n"))},
	{id: "W02", name: "random bytes", raw: wire(noise(100_000))},
	{id: "W18", name: "half handshake", raw: func(c *badConn) { _, _ = io.Copy(io.Discard, c.nc) }},
	{id: "W17", name: "handshake a byte a second", raw: func(c *badConn) { c.drip(c.nc, []byte{22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 0}) }},
	{id: "N01", name: "closes at once", raw: func(c *badConn) {}},
	{id: "N01", name: "resets at once", raw: (*badConn).reset},
	{id: "W02", name: "TLS inside TLS", hello: func(c *badConn) {
		inner := &badConn{v: c.v, nc: c.tc, dialler: c.dialler}
		_, _, _, _ = inner.handshake()
	}},
	{id: "W13", name: "other version", hello: says("hello shoal/2.0 x\n")},
	{id: "W13", name: "no version", hello: says("hello\n")},
	{id: "W14", name: "control text in the agent", hello: says("hello shoal/1.0 \x1b]0;owned\x07\x1b[2J\n")},
	{id: "W14", name: "control text in an error", hello: says("error busy \x1b[31m\r\n")},
	{id: "N03", name: "wrong proof", hello: says("hello shoal/1.0 x\njoin " + strings.Repeat("0", 64) + " " + strings.Repeat("0", 64) + "\n")},
	{id: "W01", name: "endless greeting", hello: func(c *badConn) {
		p := bytes.Repeat([]byte("hello "), 10_000)
		for {
			if _, err := c.tc.Write(p); err != nil {
				return
			}
		}
	}},

	// Those that send wrong bytes.
	{id: "E01", name: "wrong bytes always", lies: true, run: always(func(c *badConn, i int) bool {
		return c.send(i, bytes.Repeat([]byte{'x'}, len(c.bytes(i))))
	})},
	{id: "W06", name: "one wrong bit", lies: true, run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		p[c.rnd.IntN(len(p))] ^= 1 << c.rnd.IntN(8)
		return c.send(i, p)
	})},
	{id: "W06", name: "wrong bytes sometimes", lies: true, helps: true, run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		if c.v.served.Load()%3 == 2 {
			p[0] ^= 1
		}
		return c.send(i, p)
	})},
	{id: "W05", name: "bytes of another chunk", lies: true, run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		q := c.bytes((i + 1) % c.v.m.NumChunks())
		return c.send(i, append(q, p...)[:len(p)])
	})},
	{id: "E08", name: "wrong bytes with a new name each time", lies: true, run: func(c *badConn) {
		c.sayf("have all\n")
		c.wants(func(i int) bool {
			if c.port != "" && !c.dialler {
				c.v.once.Do(func() { c.v.attack(c.port, 4) })
			}
			return c.send(i, make([]byte, len(c.bytes(i))))
		})
	}},

	// Those whose data is not what the protocol allows.
	{id: "W05", name: "data for another chunk", run: manifestFirst(func(c *badConn, i int) bool {
		j := (i + 1) % c.v.m.NumChunks()
		return c.send(j, c.bytes(j))
	})},
	{id: "W05", name: "data that nobody asked for", run: says("have all\ndata 0 0 262144\n" + strings.Repeat("x", 262144))},
	{id: "W05", name: "length 0", run: manifestFirst(func(c *badConn, i int) bool { return c.sayf("data %d 0 0\n", i) })},
	{id: "W05", name: "length 2^63", run: manifestFirst(func(c *badConn, i int) bool { return c.sayf("data %d 0 9223372036854775808\n", i) })},
	{id: "W05", name: "longer than the chunk", run: manifestFirst(func(c *badConn, i int) bool {
		return c.sayf("data %d 0 262144\n%s", i, strings.Repeat("y", 262144))
	})},
	{id: "W05", name: "a gap in the chunk", run: manifestFirst(func(c *badConn, i int) bool {
		return c.sayf("data %d 0 100\n%sdata %d 200 100\n%s", i, c.bytes(i)[:100], i, c.bytes(i)[200:300])
	})},
	{id: "W05", name: "each chunk twice", helps: true, run: manifestFirst(func(c *badConn, i int) bool {
		first := c.right(i)
		return c.right(i) && first
	})},
	{id: "W04", name: "absurd numbers", run: says("have 0-18446744073709551615\n")},
	{id: "W07", name: "body that breaks off", run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		c.sayf("data %d 0 %d\n%s", i, len(p), p[:len(p)/64*int(c.v.came.Load()%64)])
		return false
	})},

	// Those that claim what is not so.
	{id: "W09", name: "has all and refuses all", run: manifestFirst(func(c *badConn, i int) bool { return c.sayf("gone %d\n", i) })},
	{id: "W09", name: "haves that come and go", run: func(c *badConn) {
		go c.hang() // ends with the connection
		for c.sayf("have all\ngone 0-%d\n", c.v.m.NumChunks()-1) {
			c.v.sleep(time.Millisecond)
		}
	}},
	{id: "W09", name: "haves outside the share", run: says("have 1048575\n")},
	{id: "W09", name: "bits outside the share", run: func(c *badConn) {
		c.sayf("bits 0 %s\n", base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 5000)))
		c.hang()
	}},
	{id: "W09", name: "bits beyond the last chunk", run: func(c *badConn) {
		n := c.v.m.NumChunks()
		p := bytes.Repeat([]byte{0xff}, n/8+1)
		c.sayf("bits 0 %s\n", base64.RawURLEncoding.EncodeToString(p))
		c.hang()
	}},
	{id: "W09", name: "a million haves", run: floods("have 0\n")},
	{id: "W09", name: "a million gones", run: floods("gone 0\n")},
	{id: "W12", name: "a million pings", run: floods("ping 7\n")},

	// Those that hold things up.
	{id: "E05", name: "stalls before anything", run: always(func(c *badConn, i int) bool { return true })},
	{id: "E05", name: "stalls in the middle of a chunk", run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		c.sayf("data %d 0 %d\n%s", i, len(p), p[:len(p)/2])
		c.hang()
		return false
	})},
	{id: "E05", name: "stalls after some chunks", helps: true, run: func(c *badConn) {
		n := 0
		manifestFirst(func(c *badConn, i int) bool {
			if n++; n > 6 {
				return true
			}
			return c.right(i)
		})(c)
	}},
	{id: "W17", name: "a byte a second", run: manifestFirst(func(c *badConn, i int) bool {
		p := c.bytes(i)
		return c.sayf("data %d 0 %d\n", i, len(p)) && c.drip(c.tc, p)
	})},
	{id: "W17", name: "a line a byte a second", run: func(c *badConn) { c.drip(c.tc, []byte(strings.Repeat("have all\n", 20))) }},
	{id: "W17", name: "nothing but keep-alive", run: func(c *badConn) {
		c.sayf("have all\n")
		go c.hang() // ends with the connection
		for i := 0; c.sayf("ping %d\n", i); i++ {
			c.v.sleep(time.Second)
		}
	}},
	{id: "E06", name: "never reads", run: func(c *badConn) {
		c.sayf("have all\nwant 0-%d\n", c.v.m.NumChunks()-1)
		c.hold()
	}},
	{id: "E07", name: "hangs up after every chunk", helps: true, run: manifestFirst(func(c *badConn, i int) bool {
		c.right(i)
		return false
	})},
	{id: "E09", name: "says that it has the rare ones, and is slow", helps: true, run: func(c *badConn) {
		c.sayf("have 0-%d\n", c.v.m.NumChunks()/2)
		c.wants(func(i int) bool {
			p := c.bytes(i)
			if i < 0 {
				return c.right(i)
			}
			for off := 0; off < len(p); off += 2048 {
				q := p[off:min(len(p), off+2048)]
				if !c.sayf("data %d %d %d\n%s", i, off, len(q), q) {
					return false
				}
				c.v.sleep(200 * time.Millisecond)
			}
			return true
		})
	}},
	{id: "M01", name: "manifest of 64 MiB, a byte a second", run: always(func(c *badConn, i int) bool {
		if i < 0 {
			return c.sayf("manifest 67108864\ndata manifest 0 262144\n") && c.drip(c.tc, make([]byte, 100))
		}
		return true
	})},
	{id: "M01", name: "wrong manifest", lies: true, run: always(func(c *badConn, i int) bool {
		return i >= 0 || c.send(-1, bytes.ToUpper([]byte(c.v.m.Text())))
	})},

	// Those that want too much.
	{id: "W12", name: "asks for one chunk for ever", run: floods("want 0\n")},
	{id: "W11", name: "asks for everything again and again and reads nothing", run: func(c *badConn) {
		line := fmt.Sprintf("want 0-%d\n", c.v.m.NumChunks()-1)
		for range 10_000 {
			if !c.sayf("%s", line) {
				return
			}
		}
		c.hold()
	}},
	{id: "W12", name: "asks and cancels", run: func(c *badConn) {
		floods(fmt.Sprintf("want 0-%d\ncancel 0-%d\n", c.v.m.NumChunks()-1, c.v.m.NumChunks()-1))(c)
	}},
	{id: "E11", name: "takes everything and gives nothing", run: func(c *badConn) {
		n := c.v.m.NumChunks()
		order := c.rnd.Perm(n)
		c.sayf("have none\n")
		asked := 0
		more := func() bool {
			s := ""
			for range 16 {
				s += fmt.Sprintf("want %d\n", order[asked%n])
				asked++
			}
			return c.sayf("%s", s)
		}
		more()
		came := 0
		c.each(func(verb, rest string) bool {
			if verb != "data" && verb != "gone" {
				return true
			}
			came++
			return came%16 != 0 || more()
		})
	}},
	{id: "R01", name: "a flood of connections", run: func(c *badConn) {
		c.sayf("have all\n")
		var open []net.Conn
		defer func() {
			for _, nc := range open {
				nc.Close()
			}
		}()
		c.each(func(string, string) bool {
			for c.port != "" && len(open) < 300 {
				nc, err := c.v.dial(c.port)
				if err != nil {
					break
				}
				open = append(open, nc)
			}
			return true
		})
	}},

	// Those that say other things.
	{id: "E10", name: "hostile hints", run: func(c *badConn) {
		c.sayf("have none\npeer 127.0.0.1:22 %s 169.254.1.1:80 10.255.255.1:9\n", c.nc.LocalAddr())
		for i := range 200 {
			c.sayf("peer 192.0.2.%d:%d [2001:db8::%x]:1\n", i+1, 1000+i, i+1)
		}
		c.hang()
	}},
	{id: "E10", name: "hints that are no addresses", run: says("peer 0.0.0.0:1 224.0.0.1:1\n")},
	{id: "E10", name: "hint to port 0", run: says("peer 192.0.2.1:0\n")},
	{id: "W01", name: "endless line", run: floods("have0")},
	{id: "W01", name: "NUL and CR in lines", run: says("have all\r\nha\x00ve none\n")},
	{id: "W02", name: "garbage", run: func(c *badConn) {
		p := noise(1 << 20)
		_, _ = c.tc.Write(p) // it may be gone
		c.hang()
	}},
	{id: "W03", name: "a second greeting", run: says("hello shoal/1.0 again\n")},
	{id: "W03", name: "a manifest that nobody asked for", run: says("manifest 100\n")},
	{id: "W03", name: "says good-bye at once", run: says("bye\n")},
	{id: "W04", name: "port 0 and port 65536", run: says("listen 0\nlisten 65536\n")},
}

// chosen returns the behaviours for which f holds.
func chosen(f func(behaviour) bool) []behaviour {
	return slices.DeleteFunc(slices.Clone(behaviours), func(b behaviour) bool { return !f(b) })
}
