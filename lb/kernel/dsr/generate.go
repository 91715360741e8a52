package dsr

// The object files are in the repository, so that building needs no compiler but
// Go's. Whoever changes bpf/dsr.c needs clang (19 was used) and libbpf's headers
// (Debian: clang-19 llvm-19 libbpf-dev).
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go@v0.22.0 -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -no-global-types object bpf/dsr.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
