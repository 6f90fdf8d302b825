package peer

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestByHand does what SPEC.md says under "By hand", with nothing of ours but
// the listener.
func TestByHand(t *testing.T) {
	openssl := findOpenSSL(t)
	b3sum, err := exec.LookPath("b3sum")
	if err != nil {
		skip(t, "no b3sum")
	}
	n := newTestNode(t, Config{Agent: "seed/1"})
	addr := serveTest(t, n)

	dir := t.TempDir()
	run := func(stdin []byte, name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Stdin = bytes.NewReader(stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
		}
		return out
	}
	hash := func(stdin []byte, args ...string) string {
		t.Helper()
		return string(run(stdin, b3sum, args...)[:64])
	}
	idFromPEM := func(cert []byte) string {
		t.Helper()
		pub := run(cert, openssl, "x509", "-noout", "-pubkey")
		der := run(pub, openssl, "pkey", "-pubin", "-outform", "DER")
		return hash(der[len(der)-32:])
	}
	run(nil, openssl, "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "k.pem", "-out", "c.pem", "-subj", "/", "-days", "1")
	cert, err := os.ReadFile(filepath.Join(dir, "c.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ours := idFromPEM(cert)

	cmd := exec.Command(openssl, "s_client", "-connect", addr, "-alpn", "shoal/1", "-tls1_3",
		"-cert", "c.pem", "-key", "k.pem", "-ign_eof", "-keymatexport", "EXPORTER-shoal-1", "-keymatexportlen", "32")
	cmd.Dir = dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	watchdog := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer watchdog.Stop()

	out := bufio.NewReader(stdout)
	var said strings.Builder
	until := func(re string) string {
		t.Helper()
		for {
			s, err := out.ReadString('\n')
			said.WriteString(s)
			if m := regexp.MustCompile(re).FindStringSubmatch(s); m != nil {
				return m[len(m)-1]
			}
			if err != nil {
				t.Fatalf("no %s in\n%s", re, &said)
			}
		}
	}
	exporter := until(`Keying material: ([0-9A-F]{64})`)
	block, _ := pem.Decode([]byte(said.String()))
	if block == nil {
		t.Fatalf("no certificate in\n%s", &said)
	}
	theirs := idFromPEM(pem.EncodeToMemory(block))
	if got := fmt.Sprintf("%x", [32]byte(n.ID())); got != theirs {
		t.Fatalf("the listener's ID by hand is %s, it says %s", theirs, got)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	name := hash(testKey[:], "--derive-key", nameContext)
	key := run(testKey[:], b3sum, "--raw", "--derive-key", proofContext)
	prove := func(role string) string {
		t.Helper()
		message := append(unhex(exporter+ours+theirs), role...)
		if err := os.WriteFile(filepath.Join(dir, "message"), message, 0o600); err != nil {
			t.Fatal(err)
		}
		return hash(key, "--keyed", "message")
	}
	fmt.Fprintf(stdin, "hello shoal/1.0 me\njoin %s %s\n", name, prove(roleDialler))
	until(`^hello shoal/1\.0 seed/1\n$`)
	if got := until(`^join ` + name + ` ([0-9a-f]{64})\n$`); got != prove(roleListener) {
		t.Errorf("the listener's proof is %s", got)
	}
	until(`^have all\n$`)
	io.WriteString(stdin, "want manifest\n")
	until(`^manifest 22\n$`)
	until(`^data manifest 0 22\n$`)
	until(`^not really a manifest\n$`)
	io.WriteString(stdin, "want 0\n")
	until(`^data 0 0 11\n$`)
	io.WriteString(stdin, "bye\n")
	rest, _ := io.ReadAll(out)
	if !strings.HasPrefix(string(rest), "first chunk") {
		t.Errorf("then %q", rest)
	}
}
