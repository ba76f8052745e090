package main

import "syscall"

// setOption sets an integer socket option.
func setOption(conn syscall.Conn, level, option, value int) error {
	var failed error
	err := control(conn, func(fd int) { failed = syscall.SetsockoptInt(fd, level, option, value) })
	if err != nil {
		return err
	}
	return failed
}

// option reads an integer socket option.
func option(conn syscall.Conn, level, option int) (int, error) {
	var value int
	var failed error
	err := control(conn, func(fd int) { value, failed = syscall.GetsockoptInt(fd, level, option) })
	if err != nil {
		return 0, err
	}
	return value, failed
}

func control(conn syscall.Conn, f func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}
