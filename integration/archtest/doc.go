// Package archtest holds the repository to its design: who may import whom,
// where each third-party module lives, and the rules of style that a machine
// can see. Its tests read source, not compiled packages, so they also judge
// what does not build here.
//
// A rule's table says why. To be exempt from a rule, a file is named in that
// rule's table with a reason; an exemption that no longer applies fails too.
package archtest
