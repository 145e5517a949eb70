# Tidegate. `make` alone tells what there is.

PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib

# How long the drill of `make run` lasts.
DRILL_SECONDS ?= 60
# Passed on to `swift build` and `swift test`, for example SWIFTFLAGS="-j 2".
SWIFTFLAGS ?=

RELEASE = .build/release
SOURCES = Package.swift $(wildcard Sources Tests)

.PHONY: help deps build run test lint install uninstall clean

help:
	@echo 'make run        build, and watch real clients lose nothing while links and gateway fail'
	@echo '                (DRILL_SECONDS=600 for a longer drill)'
	@echo 'make build      build the release binary: $(RELEASE)/tidegate'
	@echo 'make install    install it with its systemd unit and configuration (PREFIX, DESTDIR)'
	@echo 'make uninstall  remove what install put there; configuration and data stay'
	@echo 'make test       run every test suite'
	@echo 'make lint       check the sources against the formatting rules'
	@echo 'make deps       install the Debian packages that are missing'
	@echo 'make clean      remove what was built'

deps:
	@.ci/install-dependencies

build:
	swift build -c release --static-swift-stdlib --product tidegate $(SWIFTFLAGS)

run: deps build
	swift build -c release --static-swift-stdlib --product drill $(SWIFTFLAGS)
	$(RELEASE)/drill --seconds $(DRILL_SECONDS) --gateway $(RELEASE)/tidegate

test: deps
	swift build --build-tests $(SWIFTFLAGS)
	swift test --skip-build $(SWIFTFLAGS)

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
	@if test -z '$(DESTDIR)'; then \
		echo 'Now: systemd-sysusers && systemctl daemon-reload && systemctl enable --now tidegate'; \
	fi

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/tidegate $(DESTDIR)$(LIBDIR)/systemd/system/tidegate.service \
		$(DESTDIR)$(LIBDIR)/sysusers.d/tidegate.conf $(DESTDIR)$(LIBDIR)/tmpfiles.d/tidegate.conf

clean:
	rm -rf .build
