package streams

// Error codes of RFC 9113, section 7.
const (
	codeNone               = 0x0
	codeProtocol           = 0x1
	codeInternal           = 0x2
	codeFlowControl        = 0x3
	codeSettingsTimeout    = 0x4
	codeStreamClosed       = 0x5
	codeFrameSize          = 0x6
	codeRefused            = 0x7
	codeCancel             = 0x8
	codeCompression        = 0x9
	codeConnect            = 0xa
	codeEnhanceYourCalm    = 0xb
	codeInadequateSecurity = 0xc
	codeHTTP11Required     = 0xd
)

// unanswered says what became of a request that the server ended with this code,
// and without an answer.
//
// Where the code says that nothing was done, the client may ask again (section
// 8.7). Where it says that the client broke the rules, anybody can bring it
// about. All else is the server's failure, with NO_ERROR as well: that may follow
// an answer (section 8.1), never replace one. Codes that nobody knows are as good
// as INTERNAL_ERROR (section 7).
func unanswered(code uint32) Outcome {
	switch code {
	case codeRefused, codeHTTP11Required:
		return Refused
	case codeProtocol, codeFlowControl, codeSettingsTimeout, codeStreamClosed, codeFrameSize,
		codeCompression, codeEnhanceYourCalm, codeInadequateSecurity:
		return Faulted
	}
	return Failed
}

// unserved says what became of one that lies behind a GOAWAY with this code
// (section 6.8).
func unserved(code uint32) Outcome {
	if code == codeNone {
		return Refused
	}
	return unanswered(code)
}
