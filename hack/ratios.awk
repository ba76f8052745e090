# Reads the output of go test -bench and prints, for every benchmark, the median of each figure and
# its ratio to the same figure of the benchmark's first sub-benchmark, unless the line has ratios of
# its own: units that begin with "of-". Why this isn't benchstat's work: CONTRIBUTING.md.

$1 == "pkg:" { package = $2 }

# BenchmarkName/sub=1-2   1000   1234 ns/op   56 B/op
$1 ~ /^Benchmark/ && NF >= 4 {
	name = $1
	sub(/-[0-9]+$/, "", name)
	key = package " " name
	if (!(key in units)) {
		order[++benchmarks] = key
		units[key] = 0
	}
	for (i = 3; i < NF; i += 2) add(key, $(i + 1), $i)
}

END {
	for (b = 1; b <= benchmarks; b++) print_benchmark(order[b])
}

function add(key, unit, value) {
	if (!((key, unit) in count)) unit_of[key, ++units[key]] = unit
	values[key, unit, ++count[key, unit]] = value
}

# key is "package BenchmarkName/sub"; what stands before "/sub" groups the lines.
function print_benchmark(key,    top, u, m, line, own) {
	match(key, / Benchmark[^\/]*/)
	top = substr(key, 1, RSTART + RLENGTH - 1)
	if (!(top in reference)) {
		reference[top] = key
		printf "\n%s\n", top
	}
	line = sprintf("  %-32s", substr(key, length(top) + 2))
	own = ""
	for (u = 1; u <= units[key]; u++) {
		m = median(key, unit_of[key, u])
		if (unit_of[key, u] ~ /^of-/) own = own sprintf("  %.2f %-16s", m, unit_of[key, u])
	}
	for (u = 1; u <= units[key]; u++) {
		if (unit_of[key, u] ~ /^of-/) continue
		m = median(key, unit_of[key, u])
		line = line sprintf("  %18s %-10s", figure(m, unit_of[key, u]), own ? "" : ratio(m, reference[top], unit_of[key, u]))
	}
	line = line own
	sub(/ +$/, "", line)
	print line
}

# Times ("ns/op", "ns-p50") and rates of bytes in a unit a person would choose, everything else as
# it came.
function figure(value, unit) {
	if (unit == "B/s") return sprintf("%.0f MB/s", value / 1e6)
	if (unit !~ /^ns[\/-]/) return sprintf(value < 1e4 ? "%.4g %s" : "%.0f %s", value, unit)
	sub(/^ns-/, " ", unit)
	sub(/^ns/, "", unit)
	if (value >= 1e9) return sprintf("%.2f s%s", value / 1e9, unit)
	if (value >= 1e6) return sprintf("%.2f ms%s", value / 1e6, unit)
	if (value >= 1e3) return sprintf("%.2f us%s", value / 1e3, unit)
	return sprintf("%.1f ns%s", value, unit)
}

function ratio(value, key, unit,    base) {
	if (!((key, unit) in count)) return ""
	base = median(key, unit)
	return base == 0 ? "" : sprintf("(x%.2f)", value / base)
}

function median(key, unit,    n, i, j, v, sorted) {
	n = count[key, unit]
	for (i = 1; i <= n; i++) {
		v = values[key, unit, i] + 0
		for (j = i - 1; j >= 1 && sorted[j] > v; j--) sorted[j + 1] = sorted[j]
		sorted[j + 1] = v
	}
	return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}
