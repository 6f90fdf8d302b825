package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// A webServer is an nginx that serves one folder at a limited rate to each
// request.
type webServer struct {
	url string
	log string // of the bytes of each answer
}

// startNginx starts nginx on a free port of the loopback address.
func startNginx(t *testing.T, dir, rate string) *webServer {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			skip(t, "needs nginx")
		}
	}
	own := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	w := &webServer{url: "http://" + addr, log: filepath.Join(own, "bytes")}
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error;
events { worker_connections 256; }
http {
	log_format bytes '$body_bytes_sent';
	access_log %[2]s bytes;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen %[3]s; root %[4]s; limit_rate %[5]s; }
}`, own, w.log, addr, dir, rate)
	must(t, os.WriteFile(filepath.Join(own, "conf"), []byte(conf), 0o644))
	cmd := exec.Command(nginx, "-p", own, "-c", filepath.Join(own, "conf"), "-e", filepath.Join(own, "error"))
	var said bytes.Buffer
	cmd.Stderr = &said
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	until(t, "nginx listens: "+said.String(), func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return w
}

// until polls a condition that must come true within a minute.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// sent returns how many bytes the server's answers had so far.
func (w *webServer) sent(t *testing.T) (n int64) {
	t.Helper()
	f, err := os.Open(w.log)
	must(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		x, err := strconv.ParseInt(lines.Text(), 10, 64)
		must(t, err)
		n += x
	}
	return n
}

// nginxShare makes a share of n bytes whose manifest names an nginx.
func nginxShare(t *testing.T, n int, rate string) (dir string, data []byte, w *webServer) {
	t.Helper()
	dir = t.TempDir()
	data = noise(n)
	must(t, os.WriteFile(filepath.Join(dir, "data"), data, 0o644))
	w = startNginx(t, dir, rate)
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "data")}, manifest.BuildOptions{Web: []string{w.url + "/"}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "data.shoal"), []byte(m.Text()), 0o644))
	return dir, data, w
}

// A share whose only peer is killed in the middle is finished from the web server
// that its manifest names; what the peer gave is not fetched again.
func TestWebOutlivesPeers(t *testing.T) {
	t.Parallel()
	dir, data, w := nginxShare(t, 16<<20, "1m")
	seed := start(t, filepath.Join(dir, "seedhome"), "share", filepath.Join(dir, "data"), "--web", w.url+"/", "--listen", "127.0.0.1:0", "--limit-up", "8M", "--json")
	ticket := seed.wait("ticket")
	if ticket == nil {
		t.Fatal("no ticket")
	}
	get := start(t, filepath.Join(dir, "home"), "get", ticket["ticket"].(string), filepath.Join(dir, "to"), "--json")
	for {
		e := get.wait("progress")
		if e == nil {
			t.Fatal("it ended early")
		}
		if e["done"].(float64) > float64(len(data))/4 {
			break
		}
	}
	must(t, seed.cmd.Process.Kill())
	end := get.wait("finished")
	if end == nil {
		t.Fatal("it did not finish without the peer")
	}
	got, err := os.ReadFile(filepath.Join(dir, "to", "data"))
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("the file is not right")
	}
	from := map[string]float64{}
	for _, p := range end["peers"].([]any) {
		p := p.(map[string]any)
		kind := "peer"
		if strings.HasPrefix(p["addr"].(string), "http") {
			kind = "web"
		}
		from[kind] += p["used"].(float64)
	}
	if from["web"] == 0 || from["peer"] == 0 {
		t.Errorf("used %v", from)
	}
	if sent := w.sent(t); sent > int64(len(data)) {
		t.Errorf("the server sent %d bytes of %d, though a peer gave a part", sent, len(data))
	}
}

// Peers that help each other take load off the web server: three of them together
// ask it for much less than three copies.
func TestPeersSpareTheWeb(t *testing.T) {
	t.Parallel()
	dir, data, w := nginxShare(t, 16<<20, "512k")
	var gets []*process
	var peers []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		peers = append(peers, l.Addr().String())
		must(t, l.Close())
	}
	for i := range 3 {
		to := filepath.Join(dir, strconv.Itoa(i))
		gets = append(gets, start(t, to+".home", "get", filepath.Join(dir, "data.shoal"), to, "--json", "--seed",
			"--listen", peers[i], "--peer", peers[(i+1)%3], "--peer", peers[(i+2)%3]))
	}
	for i, g := range gets {
		if g.wait("finished") == nil {
			t.Fatalf("get %d did not finish", i)
		}
		got, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i), "data"))
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("file %d is not right", i)
		}
	}
	copies := float64(w.sent(t)) / float64(len(data))
	t.Logf("the server sent %.2f copies to 3 receivers", copies)
	if copies > 2 {
		t.Errorf("the server sent %.2f copies to 3 receivers that help each other", copies)
	}
}
