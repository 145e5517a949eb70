import Foundation
import Testing
import Workbench

/// What `make install` puts into a fresh root, looked at with systemd's own tools.
///
/// They come with the Debian package systemd, which `make deps` installs.
@Suite("Packaging")
struct PackagingTests {
    @Test("make install puts exactly these files, with these modes")
    func files() throws {
        let root = try InstalledRoot()
        #expect(
            try root.listing()
                == ([
                    "755 /etc/tidegate/", "644 /etc/tidegate/tidegate.yaml", "755 /usr/bin/tidegate",
                    "644 /usr/lib/systemd/system/tidegate.service", "644 /usr/lib/sysusers.d/tidegate.conf",
                    "644 /usr/lib/tmpfiles.d/tidegate.conf",
                ] + Self.profiles).sorted())
        let unit = try root.read("usr/lib/systemd/system/tidegate.service")
        #expect(unit.contains("\nExecStart=/usr/bin/tidegate run --config /etc/tidegate/tidegate.yaml\n"))
        #expect(!unit.contains("@BINDIR@"))
    }

    @Test("An existing configuration survives make install, and make uninstall too")
    func configurationStays() throws {
        let root = try InstalledRoot()
        try root.write("gateway: mine\n", to: "etc/tidegate/tidegate.yaml")
        try root.make("install")
        #expect(try root.read("etc/tidegate/tidegate.yaml") == "gateway: mine\n")
        try root.make("uninstall")
        #expect(
            try root.listing()
                == (["644 /etc/tidegate/tidegate.yaml", "755 /etc/tidegate/"] + Self.profiles).sorted())
    }

    @Test("A device profile that was adapted survives make install")
    func profilesStay() throws {
        let root = try InstalledRoot()
        try root.write("profile: mine\n", to: "etc/tidegate/device-profiles/default.yaml")
        try root.make("install")
        #expect(try root.read("etc/tidegate/device-profiles/default.yaml") == "profile: mine\n")
    }

    /// As `listing` shows the device profiles that are shipped.
    private static let profiles = [
        "actuator", "battery-sensor", "default", "diagnostics", "energy-meter", "gateway-device",
        "mains-sensor",
    ].map { "644 /etc/tidegate/device-profiles/\($0).yaml" }

    @Test("make install without a build says what to do")
    func notBuilt() throws {
        let root = try InstalledRoot()
        try root.remove("source/.build/release/tidegate")
        let result = try root.run("make", "-C", root.path("source"), "install", "DESTDIR=\(root.path(""))")
        #expect(result.ending != .exited(0))
        #expect(result.text.contains("first build it, as an ordinary user: make build"))
    }

    @Test("systemd accepts the unit")
    func unitVerifies() throws {
        let root = try InstalledRoot()
        try root.needs("systemd-analyze")
        // `verify` looks for the binary at the path in the unit: point it at the one that was installed.
        let unit = try root.read("usr/lib/systemd/system/tidegate.service")
            .replacingOccurrences(of: "=/usr/bin/", with: "=\(root.path("usr/bin/"))")
        try root.write(unit, to: "check/tidegate.service")
        let result = try root.run(
            "systemd-analyze", "verify", "--man=no", root.path("check/tidegate.service"))
        // Other units of the machine may have faults of their own.
        let complaints = result.text.split(separator: "\n").filter { $0.contains("tidegate") }
        #expect(complaints.isEmpty)
        #expect(result.ending == .exited(0))

        // And it does look: a misspelt directive must not pass.
        try root.write(unit.replacing("WatchdogSec=", with: "WatchdogSeconds="), to: "check/tidegate.service")
        let misspelt = try root.run(
            "systemd-analyze", "verify", "--man=no", root.path("check/tidegate.service"))
        #expect(misspelt.text.contains("WatchdogSeconds"))
    }

    @Test("systemd rates the sandbox at an exposure of 2.0 or less")
    func exposure() throws {
        let root = try InstalledRoot()
        try root.needs("systemd-analyze")
        let result = try root.run(
            "systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
            root.path("usr/lib/systemd/system/tidegate.service"))
        #expect(result.ending == .exited(0), "\(result.text)")
        #expect(result.text.contains("Overall exposure level"))
    }

    @Test("The sandbox lets the gateway ask the kernel whether the wall clock is synchronised")
    func mayReadClock() throws {
        let lines = try InstalledRoot().read("usr/lib/systemd/system/tidegate.service").split(separator: "\n")
        // Both forbid adjtimex(2), also where it only reads; what comes later in the unit wins.
        #expect(!lines.contains { $0.hasPrefix("ProtectClock=") })
        let forbids = try #require(lines.lastIndex { $0.hasPrefix("SystemCallFilter=~") })
        let allows = try #require(
            lines.firstIndex(of: "SystemCallFilter=adjtimex clock_adjtime clock_adjtime64"))
        #expect(forbids < allows)
        // And nothing to set it with.
        #expect(lines.contains("CapabilityBoundingSet="))
    }

    @Test("systemd-sysusers makes the user")
    func user() throws {
        let root = try InstalledRoot()
        try root.needs("systemd-sysusers")
        try root.write("", to: "etc/passwd")
        try root.write("", to: "etc/group")
        let result = try root.run("systemd-sysusers", "--root=\(root.path(""))")
        #expect(result.ending == .exited(0), "\(result.text)")
        let passwd = try root.read("etc/passwd")
        #expect(passwd.contains("tidegate:x:"))
        #expect(passwd.contains(":/var/lib/tidegate:/usr/sbin/nologin"))
    }

    @Test("systemd-tmpfiles makes the directories", .enabled(if: getuid() == 0, "changing owners takes root"))
    func directories() throws {
        let root = try InstalledRoot()
        try root.needs("systemd-tmpfiles")
        try root.write("root:x:0:0::/:/bin/sh\ntidegate:x:990:990::/:/bin/false\n", to: "etc/passwd")
        try root.write("root:x:0:\ntidegate:x:990:\n", to: "etc/group")
        let result = try root.run(
            "systemd-tmpfiles", "--root=\(root.path(""))", "--create", "tidegate.conf")
        #expect(result.ending == .exited(0), "\(result.text)")
        var status = stat()
        #expect(stat(root.path("var/lib/tidegate"), &status) == 0)
        #expect(status.st_mode & 0o7777 == 0o700)
        #expect(status.st_uid == 990)
    }

    @Test(
        "The scripts are executable and bash accepts them",
        arguments: [".ci/run", ".ci/install-dependencies"])
    func scripts(name: String) throws {
        let path = InstalledRoot.repository.appending(path: name).path
        #expect(access(path, X_OK) == 0)
        let root = try InstalledRoot()
        let result = try root.run("bash", "-n", path)
        #expect(result.ending == .exited(0), "\(result.text)")
    }
}

/// A temporary root with a copy of what `make install` needs and a stand-in for the binary, installed with
/// PREFIX=/usr; gone when the test ends.
private final class InstalledRoot {
    static let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    struct Missing: Error, CustomStringConvertible {
        var description: String
    }

    private let root: URL

    init() throws {
        root = FileManager.default.temporaryDirectory.appending(path: "tidegate-install-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            at: root.appending(path: "source"), withIntermediateDirectories: true)
        for name in ["Makefile", "systemd", "device-profiles"] {
            try FileManager.default.copyItem(
                at: Self.repository.appending(path: name).resolvingSymlinksInPath(),
                to: root.appending(path: "source/\(name)"))
        }
        try write("#!/bin/sh\n", to: "source/.build/release/tidegate")
        chmod(path("source/.build/release/tidegate"), 0o755)
        try make("install")
    }

    deinit {
        do { try FileManager.default.removeItem(at: root) } catch { print("left behind: \(root.path)") }
    }

    func path(_ name: String) -> String { root.path + "/" + name }
    func read(_ name: String) throws -> String { try String(contentsOfFile: path(name), encoding: .utf8) }
    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path(name)) }

    func write(_ text: String, to name: String) throws {
        let url = root.appending(path: name)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try text.write(to: url, atomically: false, encoding: .utf8)
    }

    func make(_ target: String) throws {
        let result = try run("make", "-C", path("source"), target, "DESTDIR=\(root.path)", "PREFIX=/usr")
        guard result.ending == .exited(0) else {
            throw Missing(description: "make \(target) failed: \(result.text)")
        }
    }

    /// Mode and path of every installed file, and of the directory of the configuration.
    func listing() throws -> [String] {
        let result = try run(
            "find", root.path, "-path", path("source"), "-prune", "-o", "(", "-type", "f", "-printf",
            "%m /%P\n", ")",
            "-o", "-path", path("etc/tidegate"), "-printf", "%m /%P/\n")
        return result.text.split(separator: "\n").map(String.init).sorted()
    }

    /// Says clearly what is missing instead of failing somewhere inside.
    func needs(_ tool: String) throws {
        guard try run("sh", "-c", "command -v \(tool)").ending == .exited(0) else {
            throw Missing(description: "\(tool) is not installed: run `make deps`")
        }
    }

    func run(_ arguments: String...) throws -> (ending: ChildProcess.Ending?, text: String) {
        // A make above this one must not pass its flags down.
        let environment = ["-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"]
        return try ChildProcess.run("/usr/bin/env", environment + arguments)
    }
}
