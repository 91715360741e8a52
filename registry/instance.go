package registry

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The least an instance is: this is what bare text and a bad document are
// mended to.
const instanceMend = `write {"address":"10.0.0.11","port":8080} or 10.0.0.11:8080`

// DecodeInstance reads the value of an instance's key: the full JSON form, the
// short one with a single "address", or the bare text `10.0.0.11:8080`. The
// service and the id are checked and folded. Unknown fields are Ignored; a
// field of the right name with a wrong value makes the whole record unusable,
// since half an instance would serve wrong answers. The result shares no
// memory with value. Errors are FieldErrors.
func DecodeInstance(service, id string, value []byte) (Instance, error) {
	in := Instance{Weight: 1}
	var err error
	if in.Service, in.ID, err = foldPair(KindInstance, service, id); err != nil {
		return Instance{}, err
	}
	if err := checkSize(value, instanceMend); err != nil {
		return Instance{}, err
	}
	c := cursor{in: value, mend: instanceMend}
	if first := c.peek(); first == '{' {
		err = c.document(func(name []byte) error { // not decode, whose cursor is allocated
			known, err := in.field(&c, name)
			return c.after(name, known, err)
		})
		if err == nil && len(in.Addresses) == 0 {
			err = missingAddress(value)
		}
	} else {
		err = in.bareText(string(value[c.at:]))
	}
	if err == nil {
		err = in.settle()
	}
	if err != nil {
		return Instance{}, err
	}
	in.Ignored = c.ignored
	return in, nil
}

// missingAddress is the error of a JSON object without an address: it names the field
// that may be meant for it.
func missingAddress(value []byte) error {
	missing := &FieldError{Field: "address", Reason: "is missing", Mend: instanceMend}
	c := cursor{in: value, mend: instanceMend}
	_ = c.document(func(name []byte) error { // was read before without an error
		if meant := Meant(lower(string(name)), []string{"address", "addresses"}); meant != "" && string(name) != meant {
			missing.Value, missing.Reason, missing.Mend = excerpt(name), "stands in its place", "write it as "+meant
		}
		return c.skip()
	})
	return missing
}

// checkSize refuses what is too large or empty before it is looked at.
func checkSize(value []byte, mend string) error {
	if len(value) > ValueMax {
		return &FieldError{Reason: "the value has " + strconv.Itoa(len(value)) + " bytes, more than 65536", Mend: "write less"}
	}
	if len(value) == 0 {
		return &FieldError{Reason: "the value is empty", Mend: mend}
	}
	return nil
}

// bareText reads `10.0.0.11:8080`, `[fd00::11]:8080`, or either without a port. IPv6
// has brackets: nobody can say whether `fd00::11:8080` ends in a port.
func (in *Instance) bareText(s string) error {
	s = strings.TrimRight(s, " \t\r\n")
	if ap, err := netip.ParseAddrPort(s); err == nil {
		if ap.Port() == 0 {
			return bad("", s, "has port 0", "write 1 to 65535")
		}
		in.Port = ap.Port()
		return in.addAddress(ap.Addr().String())
	}
	address, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		address, bracketed = strings.CutSuffix(address, "]")
	}
	addr, err := netip.ParseAddr(address)
	switch {
	case err != nil || bracketed && !addr.Is6():
		return bad("", s, "is neither a JSON object nor an IP address with a port", instanceMend)
	case addr.Is6() && !bracketed:
		return bad("", s, "is IPv6 without brackets, so that it is not clear whether it ends in a port", `write [fd00::11]:8080 or {"address":"fd00::11","port":8080}`)
	}
	return in.addAddress(address)
}

// field is a fieldReader.
func (in *Instance) field(c *cursor, name []byte) (known bool, err error) {
	var n int
	switch string(name) {
	case "address":
		err = in.readAddress(c)
	case "addresses":
		err = c.array(AddressesMax, func(int) error { return in.readAddress(c) })
	case "port":
		if !c.null() {
			n, err = c.integer(1, 65535)
			in.Port = uint16(n)
		}
	case "ports":
		in.Ports, err = readPorts(c)
	case "weight":
		if !c.null() {
			n, err = c.integer(0, 65535)
			in.Weight = uint16(n)
		}
	case "priority":
		if !c.null() {
			n, err = c.integer(0, 65535)
			in.Priority = uint16(n)
		}
	case "tags":
		in.Tags, err = readTags(c)
	case "meta":
		in.Meta, err = readMeta(c)
	case "region":
		in.Region, err = c.folded()
	case "zone":
		in.Zone, err = c.folded()
	case "ttl":
		in.TTL, err = c.ttl()
	case "checks":
		in.Checks, err = readChecks(c)
	default:
		return false, nil
	}
	return true, err
}

// settle checks what no field can check alone.
func (in *Instance) settle() error {
	for i := range in.Checks {
		if err := in.checkPort(in.Checks[i]); err != nil {
			return within("checks["+strconv.Itoa(i)+"].port", err)
		}
	}
	return nil
}

// checkPort says whether a check of the instance's own has a port to go to.
func (in *Instance) checkPort(check Check) error {
	if check.Type == "ttl" || check.Port == "" && in.Port != 0 || isNumber(check.Port) {
		return nil
	}
	if check.Port == "" {
		return &FieldError{Reason: "is missing, and the instance has no default port", Mend: `give the instance a "port" or the check one`}
	}
	if !slices.ContainsFunc(in.Ports, func(p Port) bool { return p.Name == check.Port }) {
		return bad("", check.Port, "is none of the instance's ports", `name it in "ports" or write a number`)
	}
	return nil
}

// isNumber reports whether s begins as a port number does; a check's port was
// read by readCheckPort, so it then is one.
func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

func (in *Instance) readAddress(c *cursor) error {
	s, err := c.text(TextMax)
	if err != nil {
		return err
	}
	return in.addAddress(s)
}

// addAddress adds an address that an answer may hold. IPv4 written as IPv6 is
// IPv4; an address that stands there already is not added again.
func (in *Instance) addAddress(s string) error {
	const mend = "write the address of one host, as 10.0.0.11 or fd00::11"
	addr, err := netip.ParseAddr(s)
	if err != nil {
		if _, err := netip.ParseAddrPort(s); err == nil {
			return bad("", s, "has a port", `write the address alone, and the port as "port"`)
		}
		return bad("", s, "is not an IP address", mend)
	}
	addr = addr.Unmap()
	switch {
	case addr.Zone() != "":
		return bad("", s, "has a zone, which no DNS answer can carry", mend)
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad("", s, "is the address of no single host", mend)
	case slices.Contains(in.Addresses, addr):
		return nil
	case len(in.Addresses) == AddressesMax:
		return bad("", s, "is one address too many", "write at most "+strconv.Itoa(AddressesMax))
	}
	in.Addresses = append(in.Addresses, addr)
	return nil
}

// readPorts reads {"http":8080,"dns":"53/udp"}, sorted by name.
func readPorts(c *cursor) ([]Port, error) {
	var ports []Port
	err := c.object(func(name []byte) error {
		label, err := FoldLabel(string(name))
		if err != nil {
			return err
		}
		port, err := readPort(c)
		if err != nil {
			return within(label, err)
		}
		if len(ports) == PortsMax {
			return bad("", label, "is one port too many", "write at most "+strconv.Itoa(PortsMax))
		}
		port.Name = label
		ports = append(ports, port)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(ports); i++ {
		if ports[i].Name == ports[i-1].Name {
			return nil, bad("", ports[i].Name, "stands twice", "names of ports are equal whatever their case; write it once")
		}
	}
	return ports, nil
}

// readPort reads 8080, "8080", "53/udp".
func readPort(c *cursor) (Port, error) {
	if c.peek() != '"' {
		n, err := c.integer(1, 65535)
		return Port{Number: uint16(n), Proto: "tcp"}, err
	}
	s, err := c.text(TextMax)
	if err != nil {
		return Port{}, err
	}
	number, proto, given := strings.Cut(s, "/")
	if !given {
		proto = "tcp"
	}
	n, err := parsePort(number)
	if err != nil || proto != "tcp" && proto != "udp" {
		return Port{}, bad("", s, "is not a port", `write 8080, "53/udp" or "53/tcp"`)
	}
	return Port{Number: n, Proto: proto}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, bad("", s, "is not a port", "write 1 to 65535")
	}
	return uint16(n), nil
}

// readTags reads a list of tags: folded, sorted, each once.
func readTags(c *cursor) ([]string, error) {
	var tags []string
	err := c.array(TagsMax, func(int) error {
		tag, err := c.folded()
		if err == nil && tag == "" {
			err = &FieldError{Reason: "is empty", Mend: "leave it out"}
		}
		tags = append(tags, tag)
		return err
	})
	slices.Sort(tags)
	return slices.Compact(tags), err
}

// readMeta reads an object of strings.
func readMeta(c *cursor) (map[string]string, error) {
	var meta map[string]string
	err := c.object(func(name []byte) error {
		key := string(name)
		if err := checkText(key, TextMax); err != nil {
			return err
		}
		value, err := c.text(MetaValueMax)
		if err != nil {
			return within(fieldName(key), err)
		}
		if len(meta) == MetaMax {
			return bad("", key, "is one entry too many", "write at most "+strconv.Itoa(MetaMax))
		}
		if meta == nil {
			meta = make(map[string]string)
		}
		meta[key] = value
		return nil
	})
	return meta, err
}

// fieldName is how an error names a part whose name a registrant chose.
func fieldName(s string) string {
	if isLabel(s) {
		return s
	}
	return excerpt(s)
}

// folded reads a text in lower case.
func (c *cursor) folded() (string, error) {
	s, err := c.text(TextMax)
	return lower(s), err
}
