package web

import "net/netip"

// GuardCheck checks addresses one after the other, as one source leads to them.
func GuardCheck(addrs ...netip.Addr) error {
	var g guard
	for _, a := range addrs {
		if err := g.check(a); err != nil {
			return err
		}
	}
	return nil
}
