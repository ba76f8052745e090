# Shortens what go test -v prints: what failed, a line for each package, and at the end how many
# tests passed, failed and were left out. A test with parts counts as its parts.

function flush_package(failed,    name, parent, i) {
	for (name in result) {
		parent = name
		while (match(parent, /\/[^\/]*$/)) {
			parent = substr(parent, 1, RSTART - 1)
			has_parts[parent] = 1
		}
	}
	for (name in result)
		if (!(name in has_parts))
			count[result[name]]++
	if (failed)
		for (i = 1; i <= lines; i++)
			if (line[i] !~ /^ *--- (PASS|SKIP)/)
				print line[i]
	delete result
	delete has_parts
	lines = 0
}

/^ *--- (PASS|FAIL|SKIP): / {
	split($0, words, " ")
	result[words[3]] = substr(words[2], 1, 4)
}

/^=== / || /: needs root, which tests don.t have with -short$|: needs to be root, to be obeyed$/ { next }
/^\?? *\t/ && /no test files/ { next }
/^ok *\t/ { flush_package(0); if (!/no tests to run/) print; next }
/^FAIL\t/ { flush_package(1); print; broken = 1; next }
{ line[++lines] = $0 }

END {
	for (i = 1; i <= lines; i++) # what belongs to no package: errors of the build
		if (line[i] !~ /^(PASS|FAIL)$/)
			print line[i]
	printf "unit: %d passed, %d failed, %d left out (they need root: make test)\n", count["PASS"], count["FAIL"], count["SKIP"]
	exit broken || count["FAIL"] > 0
}
