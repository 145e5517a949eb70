import Foundation
import Workbench

/// `powercut --gateway PATH …`: the shipped binary on a real file system, on a disk that loses its power at any moment.
@main
struct PowerCutCommand {
    var gateway = ""
    var images = 200
    var rounds = 4
    var seconds = 6.0
    var seed = Seed.ofThisRun
    var parent = "/var/tmp"
    var hasCloud = true
    /// What the disk was told to flush may be missing: acknowledged messages must then be, and the rig must see it.
    var ignoresFlushes = false
    var keepsImages = false
    private var isInside = false

    static let usage = """
        usage: powercut --gateway PATH [--images N] [--rounds N] [--seconds N] [--seed N] [--state DIR] [--no-cloud]
                        [--ignore-flushes] [--keep]
          --gateway PATH    the tidegate binary to put to the test
          --images N        how many power cuts; 200 when not given
          --rounds N        of how many recordings they are made; 4 when not given
          --seconds N       how long each recording lasts; 6 when not given
          --seed N          the dice of an earlier run; the times of the clients' packets are not repeated
          --state DIR       a directory for everything written; /var/tmp when not given
          --no-cloud        without an uplink and a broker behind it
          --ignore-flushes  a disk that only says that it flushes: acknowledged messages are lost, and it must be seen
          --keep            keeps the disks on which something was wrong

        It needs root, /dev/fuse and loop devices, and ends with status 77 where they are not to be had.

        """
    private static let skipped: Int32 = 77

    static func main() {
        let command: PowerCutCommand
        do { command = try PowerCutCommand(Array(CommandLine.arguments.dropFirst())) } catch {
            FileHandle.standardError.write(Data("powercut: \(error)\n\(usage)".utf8))
            exit(64)
        }
        do {
            try command.enterOwnNamespace()
            Interruption.watch()
            exit(try command.run())
        } catch let error as NotToBeHad {
            print("skipped: the power-cut rig needs root, FUSE and loop devices here: \(error)")
            exit(skipped)
        } catch {
            FileHandle.standardError.write(Data("powercut: \(error)\n".utf8))
            exit(1)
        }
    }

    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            switch name {
            case "--no-cloud": hasCloud = false
            case "--ignore-flushes": ignoresFlushes = true
            case "--keep": keepsImages = true
            case "--inside": isInside = true
            default:
                guard let value = rest.popFirst() else { throw WorkbenchError("\(name) needs a value") }
                try take(name, value)
            }
        }
        guard !gateway.isEmpty else { throw WorkbenchError("--gateway is missing") }
        guard access(gateway, X_OK) == 0 else {
            throw WorkbenchError("\(gateway) is not there, or not executable")
        }
    }

    private mutating func take(_ name: String, _ value: String) throws {
        func number(_ least: Int) throws -> Int {
            guard let number = Int(value), number >= least else {
                throw WorkbenchError("\(name) must be a number of at least \(least)")
            }
            return number
        }
        switch name {
        case "--gateway": gateway = value
        case "--state": parent = value
        case "--images": images = try number(1)
        case "--rounds": rounds = try number(1)
        case "--seconds": seconds = Double(try number(1))
        case "--seed":
            guard let number = UInt64(value) else { throw WorkbenchError("--seed must be a number") }
            seed = number
        default: throw WorkbenchError("unknown argument \(name)")
        }
    }

    /// Begins anew with mounts of its own: however this process ends, the kernel takes them away with it, and with the
    /// mounts the loop devices.
    private func enterOwnNamespace() throws {
        guard !isInside else { return }
        guard geteuid() == 0 else { throw NotToBeHad("not root") }
        for path in ["/dev/fuse", "/dev/loop-control", "/sbin/mkfs.ext4", "/usr/bin/unshare"]
        where access(path, F_OK) != 0 {
            throw NotToBeHad("no \(path)")
        }
        guard unshareIsAllowed() else { throw NotToBeHad("no right to mount") }
        var arguments: [UnsafeMutablePointer<CChar>?] =
            (["/usr/bin/unshare", "--mount", "--propagation", "private", "--", "/proc/self/exe"]
            + CommandLine.arguments.dropFirst() + ["--inside"]).map { strdup($0) }
        if let own = realpath("/proc/self/exe", nil) { arguments[5] = own }
        arguments.append(nil)
        execv("/usr/bin/unshare", arguments)
        throw NotToBeHad("cannot start unshare")
    }

    private func unshareIsAllowed() -> Bool {
        do {
            let child = try ChildProcess(
                "/usr/bin/unshare", ["--mount", "--propagation", "private", "/bin/true"], log: "/dev/null")
            return child.ended(within: 10) == .exited(0)
        } catch { return false }
    }

    /// The exit status.
    private func run() throws -> Int32 {
        let place = try Workplace("tidegate-powercut", under: parent)
        defer { if !keepsImages { place.remove() } }
        print("seed \(seed)")
        var tally = Tally()
        let began = monotonicSeconds()
        for number in 0..<rounds where !Interruption.happened {
            let share = images * (number + 1) / rounds - images * number / rounds
            let own = try Workplace("round", under: place.path)
            try Round(self, own, number: number).run(images: share, into: &tally)
            if !keepsImages { own.remove() }
        }
        print("\(tally.report)\n\(Int(monotonicSeconds() - began)) seconds")
        if Interruption.happened { return 130 }
        return tally.faults.isEmpty ? 0 : 1
    }
}
