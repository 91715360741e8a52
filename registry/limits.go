package registry

import "time"

// The limits of what one record may hold. Whoever can write under the prefix
// can write anything, so each part of a record that is kept has a bound, and
// what exceeds it makes a Problem and nothing else.
const (
	// ValueMax is the greatest size of a stored value in bytes. The largest
	// useful instance is well under 8 KiB.
	ValueMax = 64 << 10
	// FailoverMax is the number of services that one fails over to.
	FailoverMax = 8
	// VIPsMax is the number of virtual addresses of one service.
	VIPsMax = 16
	// AddressesMax is the number of addresses of one instance.
	AddressesMax = 64
	// PortsMax is the number of named ports of one instance.
	PortsMax = 64
	// TagsMax is the number of tags of one instance.
	TagsMax = 64
	// MetaMax is the number of metadata entries of one record.
	MetaMax = 64
	// ChecksMax is the number of checks of one instance or service.
	ChecksMax = 16
	// HashBoundMax is the greatest Service.HashBound: it bounds nothing any more.
	HashBoundMax = 100
	// AnswersMax is the greatest Service.MaxAnswers: more records than this
	// fit no DNS message.
	AnswersMax = 4096
	// TextMax is the size in octets of a tag, a region, a reason and the like:
	// what one TXT character-string holds (RFC 1035 section 3.3).
	TextMax = 255
	// MetaValueMax is the size in octets of one metadata value.
	MetaValueMax = 1024
	// CommandMax is the number of words of an exec check's command.
	CommandMax = 32
	// PathMax is the size in octets of a check's request target.
	PathMax = 1024

	// TTLMin and TTLMax are the least and the greatest time to live of a
	// record set. Values outside are brought inside: an answer that caches
	// keep for years cannot be taken back, and 0 stops every cache from
	// helping.
	TTLMin = time.Second
	TTLMax = time.Hour

	// CheckIntervalMin and CheckIntervalMax bound how often a check runs.
	CheckIntervalMin = 100 * time.Millisecond
	CheckIntervalMax = time.Hour
	// CheckTimeoutMin and CheckTimeoutMax bound how long a check may take.
	CheckTimeoutMin = time.Millisecond
	CheckTimeoutMax = 5 * time.Minute
	// CheckCountMax is the greatest rise and fall.
	CheckCountMax = 100
	// SlowStartMax is the greatest Service.SlowStart.
	SlowStartMax = time.Hour
)

// depthMax is how deep arrays and objects of a value may nest. The deepest
// known field is at 3; the rest is room for unknown ones.
const depthMax = 32

// ignoredMax is the number of fields that are not known of which a record tells.
const ignoredMax = 4

// excerptMax is the number of bytes of a bad value that an error repeats.
const excerptMax = 48
