package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// A Transfer is a get that was started and has not ended well yet.
type Transfer struct {
	Part    string    `json:"-"` // absolute path of the part folder
	Dest    string    `json:"dest"`
	Root    string    `json:"root"`
	Size    int64     `json:"size"` // bytes
	Started time.Time `json:"started"`
	Made    string    `json:"made,omitempty"` // the topmost folder that was made for it; "": none
}

// maxTransfers bounds the list; the oldest are forgotten. What they left on
// the disk stays, and resume with the folder's name finds it.
const maxTransfers = 1000

// Add puts t on the list, in the place of an earlier one with the same part. If
// that is of the same share, the get goes on: when it began, and what was made for
// it, is what the earlier one says.
func (s *Store) Add(t Transfer) error {
	return s.update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketTransfers)
		if err != nil {
			return err
		}
		var old Transfer
		if v := b.Get([]byte(t.Part)); v != nil && json.Unmarshal(v, &old) == nil && old.Root == t.Root {
			t.Started, t.Made = old.Started, old.Made
		}
		v, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if err := b.Put([]byte(t.Part), v); err != nil {
			return err
		}
		ts := list(b)
		for len(ts) > maxTransfers {
			if err := b.Delete([]byte(ts[0].Part)); err != nil {
				return err
			}
			ts = ts[1:]
		}
		return nil
	})
}

// Remove takes the transfer with this part off the list. It is no error if it
// is not on it.
func (s *Store) Remove(part string) error {
	return s.update(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketTransfers); b != nil {
			return b.Delete([]byte(part))
		}
		return nil
	})
}

// Move notes that a part has another place now.
func (s *Store) Move(t Transfer, part, dest string) error {
	if err := s.Remove(t.Part); err != nil {
		return err
	}
	t.Part, t.Dest, t.Made = part, dest, ""
	return s.Add(t)
}

// Transfers returns the list, oldest first.
func (s *Store) Transfers() ([]Transfer, error) {
	var ts []Transfer
	err := s.view(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketTransfers); b != nil {
			ts = list(b)
		}
		return nil
	})
	return ts, err
}

// list returns the transfers in b, oldest first, without those that cannot be
// read.
func list(b *bbolt.Bucket) []Transfer {
	var ts []Transfer
	cur := b.Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		var t Transfer
		if json.Unmarshal(v, &t) == nil {
			t.Part = string(k)
			ts = append(ts, t)
		}
	}
	slices.SortStableFunc(ts, func(a, b Transfer) int { return a.Started.Compare(b.Started) })
	return ts
}
