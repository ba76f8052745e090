package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes in pixels.
const (
	labels, bars, values = 260, 380, 90 // widths
	row, gap             = 22, 14       // heights
	top                  = 44
)

// draw returns a chart as SVG: bars from the left, with their names before and their values behind
// them.
func draw(c chart, groups []group) string {
	most, height := c.mark, top
	for _, g := range groups {
		height += gap + row*len(g.bars)
		if g.name != "" {
			height += row
		}
		for _, b := range g.bars {
			most = max(most, b.value)
		}
	}
	scale := bars / max(most, 1e-9)
	var out, behind strings.Builder // the texts behind bars stand over the line
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" `+
		`font-family="sans-serif" font-size="13">`+"\n", labels+bars+values, height)
	fmt.Fprintf(&out, "<title>%s</title>\n", html.EscapeString(c.title))
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", labels+bars+values, height)
	text(&out, 10, 24, `font-weight="bold"`, c.title)
	y := top
	for _, g := range groups {
		if g.name != "" {
			text(&out, 10, y+16, `font-style="italic"`, g.name)
			y += row
		}
		for _, b := range g.bars {
			text(&out, labels-8, y+16, `text-anchor="end"`, b.name)
			width := b.value * scale
			fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="#4a7ab5"/>`+"\n",
				labels, y+3, width, row-6)
			text(&behind, labels+int(width)+6, y+16, `paint-order="stroke" stroke="#fff" `+
				`stroke-width="4"`, strings.TrimSpace(number(b.value)+" "+c.unit))
			y += row
		}
		y += gap
	}
	if c.mark > 0 {
		x := labels + c.mark*scale
		fmt.Fprintf(&out, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#b33"/>`+"\n",
			x, top-6, x, height-gap/2)
	}
	out.WriteString(behind.String() + "</svg>\n")
	return out.String()
}

func text(out *strings.Builder, x, y int, attributes, s string) {
	if attributes != "" {
		attributes = " " + attributes
	}
	fmt.Fprintf(out, `<text x="%d" y="%d" fill="#123"%s>%s</text>`+"\n", x, y, attributes,
		html.EscapeString(s))
}

// number has two digits behind the point below 10, and one below 100.
func number(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
