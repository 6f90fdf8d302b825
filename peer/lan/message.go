package lan

import (
	"bytes"
	"fmt"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	service  = "_shoal._tcp.local."
	ttl      = 120      // seconds that others may remember a record
	shortTTL = 10       // in answers to those who do not speak multicast DNS
	version  = "v=1"    // of the protocol between peers, in the TXT record
	topBit   = 1 << 15  // of a class: answer me alone, or: forget other records
	most     = 16       // questions, and records, of one message that are looked at
	maxLen   = 9000 - 8 // bytes of a message
)

// A heard is what matters of a message.
type heard struct {
	from   origin
	id     uint16
	asks   bool // it asks for our records
	alone  bool // and wants the answer for itself
	asked  dnsmessage.Question
	port   int  // there is a peer at this port; 0: nothing was said of one
	leaves bool // or was
}

// A talk makes and reads the messages about one share.
type talk struct {
	instance, service, host dnsmessage.Name
}

func newTalk(name string) *talk {
	return &talk{
		instance: dnsmessage.MustNewName(name + "." + service),
		service:  dnsmessage.MustNewName(service),
		host:     dnsmessage.MustNewName(name + ".local."),
	}
}

// question returns the question who has the share.
func (t *talk) question(id uint16) []byte {
	return pack(dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id},
		Questions: []dnsmessage.Question{{Name: t.instance, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET}},
	})
}

// answer returns the records of a peer that listens at port. Those who have the
// same share all have records of the same name, so that nobody may be told to
// forget the others'.
func (t *talk) answer(port int, seconds uint32) dnsmessage.Message {
	head := func(name dnsmessage.Name) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: seconds}
	}
	return dnsmessage.Message{
		Header: dnsmessage.Header{Response: true, Authoritative: true},
		Answers: []dnsmessage.Resource{
			{Header: head(t.service), Body: &dnsmessage.PTRResource{PTR: t.instance}},
			{Header: head(t.instance), Body: &dnsmessage.SRVResource{Port: uint16(port), Target: t.host}},
			{Header: head(t.instance), Body: &dnsmessage.TXTResource{TXT: []string{version}}},
		},
	}
}

// reply returns the answer for somebody who sent h from another port than that of
// multicast DNS: it has the question in it, and its number.
func (t *talk) reply(port int, h *heard) []byte {
	m := t.answer(port, shortTTL)
	m.ID = h.id
	m.Questions = []dnsmessage.Question{h.asked}
	return pack(m)
}

func pack(m dnsmessage.Message) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("lan: internal error: %v", err))
	}
	return b
}

// read takes from a message what is about the share. It makes no garbage of
// whole messages: others can send as many as they like.
func (t *talk) read(b []byte, h *heard) (relevant bool) {
	var p dnsmessage.Parser
	head, err := p.Start(b)
	if err != nil || head.OpCode != 0 {
		return false
	}
	h.id = head.ID
	if head.Response {
		return t.readAnswer(&p, h)
	}
	for range most {
		q, err := p.Question()
		if err != nil {
			break
		}
		if q.Class&^topBit != dnsmessage.ClassINET && q.Class != dnsmessage.ClassANY || !t.has(q.Name, q.Type) {
			continue
		}
		h.asks, h.asked = true, q
		h.alone = q.Class&topBit != 0 && q.Class != dnsmessage.ClassANY
		h.asked.Class = dnsmessage.ClassINET
		return true
	}
	return false
}

// has reports whether we have a record of that name and type.
func (t *talk) has(n dnsmessage.Name, typ dnsmessage.Type) bool {
	switch typ {
	case dnsmessage.TypePTR:
		return same(n, t.service)
	case dnsmessage.TypeSRV, dnsmessage.TypeTXT:
		return same(n, t.instance)
	case dnsmessage.TypeALL:
		return same(n, t.service) || same(n, t.instance)
	}
	return false
}

func (t *talk) readAnswer(p *dnsmessage.Parser, h *heard) bool {
	if p.SkipAllQuestions() != nil {
		return false
	}
	for range most {
		head, err := p.AnswerHeader()
		if err != nil {
			break
		}
		if !same(head.Name, t.instance) || head.Class&^topBit != dnsmessage.ClassINET {
			if p.SkipAnswer() != nil {
				return false
			}
			continue
		}
		switch head.Type {
		case dnsmessage.TypeSRV:
			r, err := p.SRVResource()
			if err != nil {
				return false
			}
			h.port, h.leaves = int(r.Port), head.TTL == 0
		case dnsmessage.TypeTXT:
			r, err := p.TXTResource()
			if err != nil || len(r.TXT) == 0 || r.TXT[0] != version {
				return false // another version, which has other rules
			}
		default:
			if p.SkipAnswer() != nil {
				return false
			}
		}
	}
	return h.port > 0
}

// same reports whether two names are equal, which is so whatever their case.
func same(a, b dnsmessage.Name) bool {
	return a.Length == b.Length && bytes.EqualFold(a.Data[:a.Length], b.Data[:b.Length])
}
