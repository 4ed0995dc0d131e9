package metrics

import "siskin.dev/siskin/bpf"

// A code is a value of the label code whose status is known.
type code struct {
	answer bpf.Answer
	name   string
	kind   language
}

// A language is what requests are written in.
type language uint8

const (
	inHTTP language = iota
	inGRPC
	inTLS
	inOther // or it could not be read
	languages
)

func codes() [7]code {
	return [...]code{
		{bpf.Answer1xx, "1xx", inHTTP},
		{bpf.Answer2xx, "2xx", inHTTP},
		{bpf.Answer3xx, "3xx", inHTTP},
		{bpf.Answer4xx, "4xx", inHTTP},
		{bpf.Answer5xx, "5xx", inHTTP},
		{bpf.AnswerGRPCOK, "grpc_ok", inGRPC},
		{bpf.AnswerGRPCError, "grpc_error", inGRPC},
	}
}

// spoken are the languages that a service's backends were heard to speak.
//
// A page has a backend's codes, zeros too, once any backend of its service has
// had one: a canary beside a stable that speaks HTTP begins with 5xx at 0, so its
// first failure is an increase, which rate() would not see in a series that
// begins with it. A service in which nothing was ever read has no such series:
// the page would be a quarter longer by zeros that say nothing.
type spoken [languages]bool

func (s *spoken) add(a *bpf.Answers) {
	for _, c := range codes() {
		s[c.kind] = s[c.kind] || a.Of[c.answer] > 0
	}
	s[inTLS] = s[inTLS] || a.Of[bpf.AnswerTLS] > 0
	s[inOther] = s[inOther] || Unparsed(a) > 0
}

func (s *spoken) has(l language) bool { return s[l] }

func (s *spoken) any() bool { return *s != spoken{} }

// Unparsed returns how many answers' status is not known, for whatever reason.
func Unparsed(a *bpf.Answers) uint64 {
	return a.Of[bpf.AnswerUnparsed] + a.Of[bpf.AnswerTLS] + a.Of[bpf.AnswerLost]
}
