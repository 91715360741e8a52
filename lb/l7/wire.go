package l7

import (
	"strconv"
	"sync"

	"github.com/musterdns/muster/lb/l7/http1"
)

// copySize is the size of the buffers that bodies are copied through.
const copySize = 32 << 10

// bufferPool keeps buffers of copySize.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, copySize)
	return &b
}

func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }

// chunkRoom is the room before a chunk's data for its size in 8 digits and
// CRLF.
const chunkRoom = 10

// frameChunk frames the n bytes that stand at chunkRoom as a chunk, for whose
// CRLF there is room after them, and returns it.
func frameChunk(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	at := chunkRoom - 2
	b[at], b[at+1] = '\r', '\n'
	for size := n; size > 0; size >>= 4 {
		at--
		b[at] = digits[size&15]
	}
	end := chunkRoom + n
	b[end], b[end+1] = '\r', '\n'
	return b[at : end+2]
}

// appendLastChunk ends a chunked body.
func appendLastChunk(b []byte, trailers []http1.Field) []byte {
	b = append(b, "0\r\n"...)
	return append(appendFields(b, trailers), "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendFields(b []byte, fields []http1.Field) []byte {
	for i := range fields {
		b = appendField(b, fields[i].Name, fields[i].Value)
	}
	return b
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}
