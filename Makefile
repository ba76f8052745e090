# Everything a developer or a CI machine runs. Needs Go, gcc, git and make;
# what else is needed is installed (hack/ensure-packages) or built into bin/ (hack/tools/go.mod).

SHELL := /usr/bin/env bash -o pipefail
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help

# The tools that make builds come first; a plain user's PATH may lack the administrator's folders.
export PATH := $(CURDIR)/bin:$(CURDIR)/bin/kind:$(PATH):/usr/sbin:/sbin

# Every Go module of the repository but those that only name programs to build.
MODULES := $(patsubst ./%,%,$(sort $(shell find . \( -name '.?*' -o -path ./bin -o -path ./hack/tools -o -path ./e2e/assets \) -prune -o -name go.mod -printf '%h\n')))

# Passed on to go test: make test TESTFLAGS='-run TestName -v'
TESTFLAGS ?=

# Runs a command in every module: $(call each-module,command)
each-module = @for module in $(MODULES); do echo "==> $$module: $(1)"; (cd "$$module" && $(1)); done

##@ Show

.PHONY: demo
demo: packages ## Bring up a small cluster on this machine and show what default-deny policies do to real connections; DEMO=cluster goes on with an administrator's ClusterNetworkPolicies
	@cd e2e && go run ./cmd/demo $(DEMO) ../config/samples

.PHONY: lab
lab: packages ## Build bin/lab, which brings up such a cluster to play in: bin/lab up
	@go build -C e2e -o $(CURDIR)/bin/lab ./cmd/lab

##@ Test

.PHONY: unit
unit: ## The tests that need neither root nor packets, as any user, without the race detector: for while you write
	@hack/unit

# One package at a time (-p 1): the packet tests of one are load for those of another, and floods
# want both cores.

.PHONY: test
test: packages programs bin/kustomize bin/helm ## Vet and test every module with the race detector; as root, for the tests that send packets
	$(call each-module,go vet ./...)
	$(call each-module,go test -race -count=1 -p 1 -timeout 20m $(TESTFLAGS) ./...)

.PHONY: test-long
test-long: packages programs bin/kustomize bin/helm ## The same tests in their long forms (floods of 100,000 changes and more)
	$(call each-module,SLUICE_LONG=1 go test -race -count=1 -p 1 -timeout 60m $(TESTFLAGS) ./...)

.PHONY: breaks
breaks: packages programs bin/kustomize bin/helm ## Break each guarantee on purpose (hack/breaks), and see its test notice; BREAKS=regexp picks some
	@go run ./hack/break '$(BREAKS)'

# What proves that the kernel does what policies mean. Tests log what they counted as "proof: 230
# cases, ...".
PROOF := policy selector ruleset enforcer controllers verify nft nflog conntrack cni overlay internal test e2e/enforce e2e/security e2e/kill e2e/cyclonus e2e/kubenetworkpolicies

.PHONY: proof
proof: packages programs ## The long forms of the tests that prove enforcement, then a bounded fuzz run (FUZZTIME=20s for each target), with counts
	@hack/proof $(PROOF)
	@hack/fuzz

.PHONY: daemons
daemons: packages programs ## Tests beside Docker, ufw, firewalld, NetworkManager and systemd-networkd themselves, of Debian's packages in a folder; once it is there, make test runs them too
	@cd e2e && go run ./cmd/lab build --debian
	@cd e2e && go test -race -count=1 -v -run '^(TestFirewalls|TestNetworkManagers)$$' ./foreign

# The kernels that users boot: KERNELS="bookworm trixie-backports" picks some of hack/kernels' list. It may begin with flags
# of hack/kernels: KERNELS="-suites e2e/bench trixie-backports" counts a packet's instructions.
KERNELS ?=
kernel-packages := qemu-system-x86_64=qemu-system-x86 cpio=cpio debootstrap=debootstrap depmod=kmod xz=xz-utils /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring

.PHONY: kernels
kernels: packages programs ## The tests of the kernel's tables, of packets and of a lab on Debian's stock kernels (5.10 to the newest), in virtual machines
	@hack/ensure-packages $(kernel-packages)
	@go run ./hack/kernels $(KERNELS)

.PHONY: kernels-fast
kernels-fast: packages programs ## The short form of that on one kernel, 6.1
	@hack/ensure-packages $(kernel-packages)
	@go run ./hack/kernels -short bookworm

.PHONY: bench
bench: packages programs ## Run the benchmarks and print each figure with its ratio to a reference; BENCH=regexp picks some
	@hack/bench

# SCALE is the number of nodes.
SCALE ?= 5000
.PHONY: bench-scale
bench-scale: packages programs ## One agent among 5,000 nodes, 150,000 pods and 2,000 policies: memory, start, steady changes; SCALE=500 makes it smaller
	@cd e2e && SLUICE_SCALE=$(SCALE) go test -run '^$$' -bench '^BenchmarkScale$$' -benchtime 1x -timeout 90m ./bench

.PHONY: bench-peers
bench-peers: packages programs ## Sluice beside real flannel and kube-router, in the same rounds: packets, policies, memory; ten minutes, and ten more the first time
	@hack/ensure-packages ipset=ipset
	@SLUICE_PEERS=1 BENCH_PACKAGES=e2e/bench BENCH='^BenchmarkPeers' BENCHTIME=1x COUNT=1 hack/bench

.PHONY: programs
programs: # What labs run: a control plane, the agent, the plugin, others' plugins. go test would build them too, but in silence.
	@cd e2e && go run ./cmd/lab build --others

.PHONY: packages
packages: # Debian packages that the tests use
	@hack/ensure-packages

##@ Clusters of Docker containers

# The first time, the image of nodes is pulled, or built where it can't be. hack/docker installs and
# starts Docker. E2E_FLAGS are ginkgo's: make e2e-fast E2E_FLAGS='--focus Services'. KEEP=1 keeps a
# cluster in which something failed.

.PHONY: e2e-fast
e2e-fast: cluster-tools ## Make a cluster with kind, install Sluice, and run the part of the suites that takes minutes
	@hack/e2e fast

.PHONY: e2e
e2e: cluster-tools ## The suites on four clusters, one after the other: dual stack (everything), IPv4, IPv6, and kube-proxy in iptables mode
	@hack/e2e all

.PHONY: e2e-here
e2e-here: bin/ginkgo ## The suites on the cluster that KUBECONFIG names, which has Sluice and can pull or has the test image
	@hack/e2e here

.PHONY: e2e-upstream
e2e-upstream: cluster-tools ## Kubernetes' own specs of NetworkPolicy, on a cluster of their own: FAMILY=… PROXY=… FOCUS=regexp picks others
	@hack/upstream

CLUSTER ?= sluice
export FAMILY ?= ipv4
export PROXY ?= nftables

.PHONY: cluster-up
cluster-up: cluster-tools cluster-images ## Make a cluster to play in: CLUSTER=name FAMILY=ipv4|ipv6|dual PROXY=nftables|iptables; prints its KUBECONFIG
	@bin/cluster up -name $(CLUSTER) -family $(FAMILY) -proxy $(PROXY) -manifest dist/install.yaml -images "$$(echo dist/{sluice,e2e}-$$(go env GOARCH).tar | tr ' ' ,)"

.PHONY: cluster-down
cluster-down: bin/kind/kind bin/cluster ## Remove that cluster
	@bin/cluster down -name $(CLUSTER)

.PHONY: cluster-tools
cluster-tools: bin/kind/kind bin/ginkgo bin/cluster # and Docker
	@hack/docker

.PHONY: cluster-images
cluster-images: # what is loaded into a cluster's nodes
	@hack/build-image --host
	@hack/build-image --test

##@ Release

export VERSION ?= v0.1.0

.PHONY: build
build: ## Build the agent and the plugin into bin/
	@CGO_ENABLED=0 go build -o bin/ ./cmd/sluice-agent ./cmd/sluice

.PHONY: image
image: ## Build the image for amd64 and arm64, with what is in it (SBOM), into dist/
	@hack/build-image

.PHONY: verify-image
verify-image: ## Build it twice, the second time from nothing, and compare
	@hack/build-image --verify

.PHONY: install-manifest
install-manifest: bin/kustomize ## Write dist/install.yaml and its like from config/
	@hack/render

##@ Write and check

.PHONY: lint
lint: bin/golangci-lint ## Lint every module
	$(call each-module,golangci-lint run ./...)

.PHONY: fmt
fmt: bin/golangci-lint ## Format every module and sort its imports
	$(call each-module,golangci-lint fmt ./...)

##@ Generate

.PHONY: generate
generate: manifests crds install-manifest kernel-page ## Write everything that is generated

RBAC_DIR ?= config/rbac

.PHONY: manifests
manifests: bin/controller-gen ## Write config/rbac/role.yaml from the +kubebuilder:rbac markers in controllers/
	@controller-gen rbac:roleName=sluice-agent paths=./controllers/... output:rbac:dir=$(RBAC_DIR)

.PHONY: crds
crds: ## Copy the CustomResourceDefinitions of ClusterNetworkPolicy from their module
	@hack/crds

.PHONY: kernel-page
kernel-page: # the parts of docs/kernels.md that internal/kernels knows
	@page=$$(mktemp); trap 'rm -f "$$page"' EXIT; go run ./hack/kernelpage <docs/kernels.md >"$$page"; cat "$$page" >docs/kernels.md

.PHONY: verify-generated
verify-generated: bin/controller-gen bin/kustomize ## Fail if a generated file is not what make generate would write
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	$(MAKE) --no-print-directory manifests RBAC_DIR="$$dir"; \
	diff -u config/rbac/role.yaml "$$dir/role.yaml" || { echo "config/rbac/role.yaml is stale: run make generate" >&2; exit 1; }; \
	hack/crds "$$dir"; \
	for file in config/components/*/crd.yaml charts/sluice/files/*; do diff -q "$$file" "$$dir/$$file" >&2 || { echo "$$file is stale: run make generate" >&2; exit 1; }; done; \
	hack/render "$$dir/dist"; \
	for file in dist/*.yaml; do diff -u "$$file" "$$dir/$$file" || { echo "$$file is stale: run make generate" >&2; exit 1; }; done; \
	go run ./hack/kernelpage <docs/kernels.md | diff -u docs/kernels.md - || { echo "docs/kernels.md is stale: run make generate" >&2; exit 1; }; \
	echo "generated files are up to date"

.PHONY: build-config
build-config: bin/kustomize ## Print the manifests that config/default makes
	@kustomize build config/default

##@ Other

.PHONY: help
help: ## Print this
	@awk 'BEGIN { FS = ":.*## "; print "make <target>" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## Remove what make built
	rm -rf bin dist/*.tar dist/*.json dist/oci

# Tools, at the versions of hack/tools/go.mod. Each is built when a target first needs it,
# and again when the versions change. Without VCS stamps, so that they do not depend on the commit.
bin/controller-gen: package := sigs.k8s.io/controller-tools/cmd/controller-gen
bin/golangci-lint: package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/kustomize: package := sigs.k8s.io/kustomize/kustomize/v5

bin/controller-gen bin/golangci-lint bin/kustomize: hack/tools/go.sum
	@echo "==> building $@ (about a minute the first time, then cached)" >&2
	@go build -C hack/tools -buildvcs=false -o $(CURDIR)/$@ $(package)
	@touch $@

# kind has a folder of its own, where clusters' kubeconfigs are too.
bin/kind/kind: e2e/assets/kind/go.sum
	@echo "==> building $@" >&2
	@go build -C e2e/assets/kind -buildvcs=false -o $(CURDIR)/$@ sigs.k8s.io/kind
	@touch $@

bin/ginkgo: e2e/go.sum
	@echo "==> building $@" >&2
	@go build -C e2e -buildvcs=false -o $(CURDIR)/$@ github.com/onsi/ginkgo/v2/ginkgo
	@touch $@

bin/helm: hack/tools/helm/go.sum
	@echo "==> building $@ (some minutes the first time, then cached)" >&2
	@go build -C hack/tools/helm -buildvcs=false -o $(CURDIR)/$@ helm.sh/helm/v3/cmd/helm
	@touch $@

.PHONY: bin/cluster
bin/cluster:
	@go build -C e2e -o $(CURDIR)/$@ ./cmd/cluster
