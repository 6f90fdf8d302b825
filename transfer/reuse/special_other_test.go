//go:build !unix

package reuse_test

import "testing"

func special(testing.TB, string) {}
