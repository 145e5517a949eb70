# Tidegate. `make` alone tells what there is.

PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib

# How long the drill of `make run` lasts.
DRILL_SECONDS ?= 60
# How long the drill of `make storm` lasts with each of the clouds.
STORM_SECONDS ?= 120
# What `make bench` measures: all rows, or some of them, and with how many messages in the backlog.
BENCH_ROWS ?= lone,ingest,kills,backlog,flash,silent,drain,profiles
BENCH_BACKLOG ?= 5000000
# How long `make fuzz` tries to break the packet decoder, and then recovery; an hour is 3600.
FUZZ_SECONDS ?= 60
# How many power cuts `make powercut` makes, and of how many recordings.
POWERCUT_IMAGES ?= 400
POWERCUT_ROUNDS ?= 8
# When `make torture` ends: after so many power cuts, or if TORTURE_HOURS is given after so many hours; and the seed that
# it begins with.
TORTURE_CUTS ?= 100000
TORTURE_HOURS ?=
TORTURE_FROM ?= 1
# Passed on to `swift build` and `swift test`, for example SWIFTFLAGS="-j 2".
SWIFTFLAGS ?=

RELEASE = .build/release
PROFILES = $(wildcard device-profiles/*.yaml)
SOURCES = Package.swift $(wildcard Sources Tests)

.PHONY: help deps build run storm powercut mutate torture test bench fuzz fuzz-packets fuzz-recovery lint install uninstall clean

help:
	@echo 'make run        build, and watch real clients lose nothing while links and gateway fail'
	@echo '                (DRILL_SECONDS=600 for a longer drill)'
	@echo 'make storm      the same with all that can befall an uplink, the death of the cloud included, with mosquitto'
	@echo '                and with RabbitMQ as the cloud (STORM_SECONDS=600 for longer ones)'
	@echo 'make powercut   cut the power of the disk under the gateway, a real ext4, and count every message'
	@echo '                (POWERCUT_IMAGES=10000 for more cuts; needs root, FUSE and loop devices)'
	@echo 'make mutate     break each rule of durability in a copy of the sources, and have the simulator notice'
	@echo 'make build      build the release binary: $(RELEASE)/tidegate'
	@echo 'make install    install it with its systemd unit and configuration (PREFIX, DESTDIR)'
	@echo 'make uninstall  remove what install put there; configuration and data stay'
	@echo 'make test       run every test suite'
	@echo 'make torture    simulate the gateway and everybody around it, and fail its power a hundred thousand times'
	@echo '                (TORTURE_CUTS=1000000 or TORTURE_HOURS=8 for longer, TORTURE_FROM=5000 for other seeds)'
	@echo 'make bench      measure speed, memory and flash wear (BENCH_ROWS=lone,ingest for some rows)'
	@echo 'make fuzz       make up packets and stores to break the gateway with'
	@echo '                (FUZZ_SECONDS=3600 for an hour of each)'
	@echo 'make lint       check the sources against the formatting rules'
	@echo 'make deps       install the Debian packages that are missing'
	@echo 'make clean      remove what was built'

deps:
	@.ci/install-dependencies

build:
	swift build -c release --static-swift-stdlib -Xlinker -s --product tidegate $(SWIFTFLAGS)

run: deps build
	swift build -c release --static-swift-stdlib -Xlinker -s --product drill $(SWIFTFLAGS)
	$(RELEASE)/drill --seconds $(DRILL_SECONDS) --gateway $(RELEASE)/tidegate

storm: deps build
	@.ci/install-dependencies rabbitmq-server
	swift build -c release --static-swift-stdlib -Xlinker -s --product drill $(SWIFTFLAGS)
	$(RELEASE)/drill --storm --seconds $(STORM_SECONDS) --gateway $(RELEASE)/tidegate
	$(RELEASE)/drill --storm --cloud rabbitmq --seconds $(STORM_SECONDS) --gateway $(RELEASE)/tidegate

powercut: deps build
	swift build -c release --static-swift-stdlib -Xlinker -s --product powercut $(SWIFTFLAGS)
	$(RELEASE)/powercut --gateway $(RELEASE)/tidegate --images $(POWERCUT_IMAGES) --rounds $(POWERCUT_ROUNDS) \
		|| test $$? -eq 77

mutate: deps
	swift build --product mutate $(SWIFTFLAGS)
	.build/debug/mutate

bench: deps build
	swift build -c release --static-swift-stdlib -Xlinker -s --product bench $(SWIFTFLAGS)
	$(RELEASE)/bench --gateway $(RELEASE)/tidegate --rows $(BENCH_ROWS) --backlog $(BENCH_BACKLOG)

test: deps
	swift build --build-tests $(SWIFTFLAGS)
	swift test --skip-build $(SWIFTFLAGS)

torture: deps
	swift build -c release --static-swift-stdlib -Xlinker -s --product simulate $(SWIFTFLAGS)
	nice $(RELEASE)/simulate --torture --from $(TORTURE_FROM) \
		$(if $(TORTURE_HOURS),--hours $(TORTURE_HOURS),--cuts $(TORTURE_CUTS))
	$(MAKE) powercut

fuzz: fuzz-packets fuzz-recovery

# Both are built with bounds checked everywhere, memory watched, and branches counted, so that libFuzzer finds inputs
# that lead to new ones. What it finds is kept in $(FUZZ)/corpus and $(FUZZ)/store-corpus from run to run; an input that
# breaks a rule is written to $(FUZZ) and belongs into Tests/MQTTTests/FoundByFuzzing.swift or
# Tests/JournalTests/StoresFoundByFuzzing.swift. With Swift's own tracing of crashes a
# finding would hang instead of ending the run.
FUZZ = .build/fuzz
FUZZ_SWIFTC = swiftc -O -whole-module-optimization -parse-as-library -warnings-as-errors -swift-version 6 \
	-enable-upcoming-feature ExistentialAny -package-name tidegate
FUZZ_WATCHED = $(FUZZ_SWIFTC) -use-ld=lld -assert-config Debug -sanitize=fuzzer,address
FUZZ_RUN = SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=quarantine_size_mb=32 nice

fuzz-packets:
	@mkdir -p $(FUZZ)/corpus $(FUZZ)/plain
	$(FUZZ_SWIFTC) -emit-module -emit-library -static -module-name MQTT \
		-emit-module-path $(FUZZ)/plain/MQTT.swiftmodule -o $(FUZZ)/plain/libMQTT.a Sources/MQTT/*.swift
	$(FUZZ_SWIFTC) -I $(FUZZ)/plain -o $(FUZZ)/write-seeds Tests/Fuzz/WriteSeeds.swift \
		Tests/MQTTTests/FuzzedStream.swift Tests/MQTTTests/Examples.swift Tests/MQTTTests/Support.swift \
		-L $(FUZZ)/plain -lMQTT
	$(FUZZ)/write-seeds $(FUZZ)/seeds
	$(FUZZ_WATCHED) -emit-module -emit-library -static -module-name MQTT \
		-emit-module-path $(FUZZ)/MQTT.swiftmodule -o $(FUZZ)/libMQTT.a Sources/MQTT/*.swift
	$(FUZZ_WATCHED) -I $(FUZZ) -I Tests/Fuzz/Sanitizer -o $(FUZZ)/fuzz-packets Tests/Fuzz/FuzzPackets.swift \
		Tests/Fuzz/Memory.swift Tests/MQTTTests/FuzzedStream.swift -L $(FUZZ) -lMQTT
	$(FUZZ_RUN) $(FUZZ)/fuzz-packets -max_total_time=$(FUZZ_SECONDS) \
		-max_len=4096 -timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=64 -use_value_profile=1 \
		-print_final_stats=1 -artifact_prefix=$(FUZZ)/ $(FUZZ)/corpus $(FUZZ)/seeds

# Recovery stands on other packages, so that the package manager builds it: Tests/Fuzz/Package.swift.
FUZZ_RECOVERY = $(FUZZ)/recovery/release/fuzz-recovery

fuzz-recovery:
	@mkdir -p $(FUZZ)/store-corpus $(FUZZ)/store-seeds
	swift build --package-path Tests/Fuzz --scratch-path $(FUZZ)/recovery -c release --sanitize fuzzer \
		-Xswiftc -sanitize=fuzzer,address -Xswiftc -enable-testing -Xswiftc -assert-config -Xswiftc Debug -Xswiftc -use-ld=lld \
		--product fuzz-recovery $(SWIFTFLAGS)
	SEEDS=$(FUZZ)/store-seeds $(FUZZ_RECOVERY)
	$(FUZZ_RUN) $(FUZZ_RECOVERY) -max_total_time=$(FUZZ_SECONDS) \
		-max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -use_value_profile=1 \
		-print_final_stats=1 -artifact_prefix=$(FUZZ)/ $(FUZZ)/store-corpus $(FUZZ)/store-seeds

lint:
	swift format lint --recursive --strict $(SOURCES)

# Installs what was built: `make build && sudo make install`, so that root compiles nothing.
install:
	@test -x $(RELEASE)/tidegate || { echo 'make install: first build it, as an ordinary user: make build' >&2; exit 1; }
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/systemd/system $(DESTDIR)$(LIBDIR)/sysusers.d \
		$(DESTDIR)$(LIBDIR)/tmpfiles.d $(DESTDIR)$(SYSCONFDIR)/tidegate
	install -m 0755 $(RELEASE)/tidegate $(DESTDIR)$(BINDIR)/tidegate
	sed 's|@BINDIR@|$(BINDIR)|' systemd/tidegate.service > $(DESTDIR)$(LIBDIR)/systemd/system/tidegate.service
	chmod 0644 $(DESTDIR)$(LIBDIR)/systemd/system/tidegate.service
	install -m 0644 systemd/tidegate.sysusers $(DESTDIR)$(LIBDIR)/sysusers.d/tidegate.conf
	install -m 0644 systemd/tidegate.tmpfiles $(DESTDIR)$(LIBDIR)/tmpfiles.d/tidegate.conf
	@if test -e $(DESTDIR)$(SYSCONFDIR)/tidegate/tidegate.yaml; then \
		echo 'kept the existing $(DESTDIR)$(SYSCONFDIR)/tidegate/tidegate.yaml'; \
	else \
		install -m 0644 systemd/tidegate.yaml $(DESTDIR)$(SYSCONFDIR)/tidegate/tidegate.yaml; \
	fi
	@for profile in $(PROFILES); do \
		target=$(DESTDIR)$(SYSCONFDIR)/tidegate/$$profile; \
		test -e $$target || install -D -m 0644 $$profile $$target; \
	done
	@if test -z '$(DESTDIR)'; then \
		echo 'Now: systemd-sysusers && systemctl daemon-reload && systemctl enable --now tidegate'; \
	fi

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/tidegate $(DESTDIR)$(LIBDIR)/systemd/system/tidegate.service \
		$(DESTDIR)$(LIBDIR)/sysusers.d/tidegate.conf $(DESTDIR)$(LIBDIR)/tmpfiles.d/tidegate.conf

clean:
	rm -rf .build
