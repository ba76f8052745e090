package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-net/sluice/test/probe"
)

// Legend says what the words in a Matrix' table mean.
const Legend = "yes: connects   -: silence   reset: refused   v4, v6: only over this family   " +
	"error: neither connects nor is denied"

// String returns a table: a row for each source, a column for each port of each destination. See
// Legend.
func (m Matrix) String() string {
	var rows []string
	var columns []column
	words := map[string]map[column][]Cell{}
	for _, cell := range m.Cells {
		if words[cell.From] == nil {
			rows = append(rows, cell.From)
			words[cell.From] = map[column][]Cell{}
		}
		c := column{place: cell.To, port: portName(cell)}
		if !slices.Contains(columns, c) {
			columns = append(columns, c)
		}
		words[cell.From][c] = append(words[cell.From][c], cell)
	}
	// A destination's name is over its first column.
	heads, ports := []string{""}, []string{"from \\ to"}
	for i, c := range columns {
		place := ""
		if i == 0 || columns[i-1].place != c.place {
			place = c.place
		}
		heads, ports = append(heads, place), append(ports, c.port)
	}
	lines := [][]string{ports}
	for _, row := range rows {
		line := []string{row}
		for _, c := range columns {
			line = append(line, word(words[row][c]))
		}
		lines = append(lines, line)
	}
	return render(heads, lines)
}

type column struct{ place, port string }

// portName is "80", or "53/udp" where it isn't TCP.
func portName(cell Cell) string {
	if cell.Protocol == probe.TCP {
		return fmt.Sprint(cell.Dst.Port())
	}
	return fmt.Sprintf("%d/%s", cell.Dst.Port(), cell.Protocol)
}

// word sums up the connections to one port over all addresses.
func word(cells []Cell) string {
	if len(cells) == 0 {
		return ""
	}
	connected, all := "", true
	refused := false
	for _, cell := range cells {
		switch {
		case cell.Result.OK && cell.Dst.Addr().Is4():
			connected = "v4"
		case cell.Result.OK:
			connected = "v6"
		case !cell.Denied():
			return "error"
		default:
			all = false
			refused = refused || errors.Is(cell.Result.Err, probe.ErrReset)
		}
	}
	switch {
	case all:
		return "yes"
	case connected != "":
		return connected
	case refused:
		return "reset"
	}
	return "-"
}

// render aligns columns. A head may be wider than its column: the columns up to the next head make
// room for it.
func render(heads []string, lines [][]string) string {
	const gap = 2
	widths := make([]int, len(heads))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for i := 0; i < len(heads); {
		next := i + 1
		room := widths[i]
		for next < len(heads) && heads[next] == "" {
			room += gap + widths[next]
			next++
		}
		widths[next-1] += max(0, utf8.RuneCountInString(heads[i])-room)
		i = next
	}
	var b strings.Builder
	for _, line := range append([][]string{heads}, lines...) {
		text, start := "", 0
		for i, field := range line {
			if field != "" {
				text += strings.Repeat(" ", start-utf8.RuneCountInString(text)) + field
			}
			start += widths[i] + gap
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}
