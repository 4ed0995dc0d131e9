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

// serversFault says whether a request that the server ended with this code, and
// without an answer, failed by the server.
//
// It did not where the code says that nothing was done, so that the client may
// ask again (section 8.7), and where it says that the client broke the rules:
// these are HTTP/2's way to say 400, and anybody can bring them about. All else
// is the server's, with NO_ERROR as well: that may follow an answer (section
// 8.1), never replace one. Codes that nobody knows are as good as INTERNAL_ERROR
// (section 7).
func serversFault(code uint32) bool {
	switch code {
	case codeRefused, codeHTTP11Required:
		return false
	case codeProtocol, codeFlowControl, codeSettingsTimeout, codeStreamClosed, codeFrameSize,
		codeCompression, codeEnhanceYourCalm, codeInadequateSecurity:
		return false
	}
	return true
}
