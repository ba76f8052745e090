package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Machine is a virtual one: a kernel, and this machine's files, to which nothing is written.
type Machine struct {
	Kernel *Kernel
	// Out is the one folder that it shares with the host: the machine writes to it.
	Out        string
	Memory     int // MiB
	Processors int
	KVM        bool // rather than an emulated processor
	// Counts says that its clock goes by a nanosecond with each instruction. It is emulated, then.
	Counts bool
}

// slowClock is how much slower than here the clock of a machine that counts may go.
const slowClock = 10

// The lines by which the machine says, on its serial console, where it is.
const (
	markUp    = "@up "    // then seconds since the kernel's start, and what uname -v says
	markBegin = "@begin " // then the command's number
	markEnd   = "@end "   // then the command's number, its exit status, and how long it took in s
)

// A Command runs in a machine, as root.
type Command struct {
	Dir   string
	Line  string        // for a shell
	Log   string        // the file in Machine.Out that gets what it prints
	Limit time.Duration // by the machine's clock
}

// Watcher is told what happens in a machine, as it happens.
type Watcher struct {
	Up    func(seconds int, version string)
	Begin func(command int)
	End   func(command, status, seconds int)
}

// Run boots the machine, runs the commands one after the other, and ends it. It returns an error if
// the machine ends, or is silent for longer than the running command's limit, before all is done.
// Whatever ends ctx ends the machine.
func (m *Machine) Run(ctx context.Context, commands []Command, w Watcher) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	script := []byte(m.script(commands))
	if err := os.WriteFile(filepath.Join(m.Out, "guest"), script, 0o644); err != nil {
		return err
	}
	console, err := os.Create(filepath.Join(m.Out, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	//nolint:gosec // qemu, with what this program says
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", m.arguments()...)
	var complaint bytes.Buffer
	qemu.Stderr = &complaint
	lines, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	if err := qemu.Start(); err != nil {
		return err
	}
	f := &follower{commands: commands, watcher: w, slow: 1,
		limit: time.AfterFunc(bootLimit, func() { cancel(errSilent) })}
	if m.Counts {
		f.slow = slowClock
	}
	defer f.limit.Stop()
	f.read(io.TeeReader(lines, console))
	err = qemu.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(complaint.String()))
	case f.ended < len(commands):
		return fmt.Errorf("the machine ended by itself; its last words are in %s", console.Name())
	}
	return nil
}

var errSilent = errors.New("the machine took longer than its limit")

// bootLimit is for the machine's start, and for its end.
const bootLimit = 5 * time.Minute

// A follower reads a machine's console.
type follower struct {
	commands []Command
	watcher  Watcher
	slow     int // how much slower than here the machine's clock goes, at most
	limit    *time.Timer
	ended    int // how many commands have
}

func (f *follower) read(console io.Reader) {
	lines := bufio.NewReader(console)
	for {
		line, err := lines.ReadString('\n')
		f.line(strings.TrimSpace(line))
		if err != nil {
			return
		}
	}
}

// line takes a line of the console. Kernels write there too: what isn't a mark of ours, whole, is
// not for us.
func (f *follower) line(line string) {
	if rest, ok := strings.CutPrefix(line, markUp); ok {
		seconds, version, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(seconds); err == nil {
			f.watcher.Up(n, version)
		}
	}
	if rest, ok := strings.CutPrefix(line, markBegin); ok {
		if n, err := strconv.Atoi(rest); err == nil && n < len(f.commands) {
			// The machine itself ends it earlier.
			f.limit.Reset(f.commands[n].Limit*time.Duration(f.slow) + time.Minute)
			f.watcher.Begin(n)
		}
	}
	if rest, ok := strings.CutPrefix(line, markEnd); ok {
		var n, status, seconds int
		if _, err := fmt.Sscan(rest, &n, &status, &seconds); err == nil && n < len(f.commands) {
			f.ended = n + 1
			f.limit.Reset(bootLimit)
			f.watcher.End(n, status, seconds)
		}
	}
}

// hasKVM reports whether KVM runs stock kernels here. /dev/kvm alone doesn't say so: where a
// hypervisor offers page tables by paravirtualization (kvm_pvm), it is there, and a stock kernel
// hangs.
func hasKVM() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	info, err := os.ReadFile("/proc/cpuinfo")
	return err == nil &&
		(bytes.Contains(info, []byte(" vmx")) || bytes.Contains(info, []byte(" svm")))
}

// arguments are qemu's. Emulated processors take turns in one thread: with a thread each, newer
// kernels panic (in sched_clock_cpu). They copy memory by words and not by bytes, which is seven
// times as fast.
func (m *Machine) arguments() []string {
	args := []string{"-m", strconv.Itoa(m.Memory), "-nographic", "-no-reboot", "-nodefaults",
		"-serial", "stdio", "-kernel", m.Kernel.Image, "-initrd", m.Kernel.Initrd,
		"-append", "console=ttyS0 panic=-1 quiet", "-smp", strconv.Itoa(m.Processors),
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path=" + m.Out + ",mount_tag=out,security_model=none"}
	switch {
	case m.Counts:
		args = append(args, "-icount", "shift=0")
	case m.KVM:
		return append(args, "-enable-kvm", "-cpu", "host")
	}
	return append(args, "-accel", "tcg,thread=single", "-cpu", "max,erms=off,fsrm=off")
}

// script is what runs in the machine.
func (m *Machine) script(commands []Command) string {
	var s strings.Builder
	// Collecting garbage costs time, which there is less of than memory.
	fmt.Fprintf(&s, `export PATH=%s HOME=%s GOGC=400
mkdir -p /lib/modules /run/netns
mount --bind %s /lib/modules
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
dmesg -n 1
# The kernel loads these by itself, which takes seconds where it is emulated. That isn't what tests
# with a deadline are about.
modprobe -a nf_tables nft_ct nft_log nft_limit nft_masq nft_nat nft_fib_inet nft_chain_nat \
	nft_reject_inet nf_conntrack_netlink nfnetlink_log nf_log_syslog veth vxlan bridge 2>/dev/null
echo
echo "%s$(cut -d . -f 1 /proc/uptime) $(uname -v), $(nft --version)"
`, quote(m.Kernel.Bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"), quote(os.Getenv("HOME")),
		quote(m.Kernel.Modules), markUp)
	s.WriteString(runScript(commands, "/run/out"))
	s.WriteString(
		"sync; poweroff -f 2>/dev/null || echo o >/proc/sysrq-trigger; while :; do sleep 1; done\n")
	return s.String()
}

// runScript is the part of the script that runs the commands, with what they print in the folder
// out.
func runScript(commands []Command, out string) string {
	var s strings.Builder
	s.WriteString("now() { cut -d . -f 1 /proc/uptime; }\n")
	for i, c := range commands {
		fmt.Fprintf(&s, `echo; echo "%[1]s%[2]d"; begun=$(now)
(cd %[3]s && timeout -k 10 %[4]d sh -c %[5]s) >%[6]s 2>&1 </dev/null
status=$?
[ $status = 0 ] || cp -r /run/sluice-lab %[6]s.lab 2>/dev/null # its programs' logs
echo; echo "%[7]s%[2]d $status $(($(now) - begun))"
`, markBegin, i, quote(c.Dir), int(c.Limit.Seconds()), quote(c.Line),
			quote(filepath.Join(out, c.Log)), markEnd)
	}
	return s.String()
}

// quote makes text one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
