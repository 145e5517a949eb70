import Foundation
import Workbench

/// What the kernel knows of a process and of a disk.
enum Gauges {
    /// User and system CPU time of a process since it began, in seconds.
    static func cpuSeconds(_ pid: pid_t) -> Double {
        let text = contents("/proc/\(pid)/stat")
        // Behind the name, which may hold anything: state is field 3, utime 14, stime 15.
        guard let end = text.lastIndex(of: ")") else { return 0 }
        let fields = text[end...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else {
            return 0
        }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Resident memory in bytes, now and at its highest.
    static func resident(_ pid: pid_t) -> (now: Int, peak: Int) {
        var now = 0
        var peak = 0
        for line in contents("/proc/\(pid)/status").split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count > 1, let value = Int(words[1]) else { continue }
            if words[0] == "VmRSS:" { now = value << 10 }
            if words[0] == "VmHWM:" { peak = value << 10 }
        }
        return (now, peak)
    }

    /// Bytes written to a block device since it exists.
    static func bytesWritten(device: String) -> Int {
        let fields = contents("/sys/block/\(device)/stat").split(separator: " ")
        return fields.count > 6 ? (Int(fields[6]) ?? 0) * 512 : 0
    }

    static func contents(_ path: String) -> String {
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }
}

/// A file with an ext4 file system on a loop device, so that the block layer counts what reaches the disk.
final class LoopDisk {
    let device: String
    let mountPoint: String
    private let image: String

    /// - Throws: `WorkbenchError` where this process may not or cannot make one.
    init(in place: Workplace, megabytes: Int) throws {
        guard geteuid() == 0 else { throw WorkbenchError("only root can mount a loop device") }
        image = place.file("disk.img")
        mountPoint = place.file("disk")
        try Self.run("truncate", "-s", "\(megabytes)M", image)
        try Self.run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        let found = try Self.run("losetup", "--show", "-f", image)
        device = found.trimmingCharacters(in: .whitespacesAndNewlines).replacingOccurrences(
            of: "/dev/", with: "")
        do {
            try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
            // As the README advises.
            try Self.run("mount", "-o", "noatime,lazytime,commit=60", "/dev/\(device)", mountPoint)
        } catch {
            _ = try? Self.run("losetup", "-d", "/dev/\(device)")  // What went wrong is told already.
            throw error
        }
    }

    /// Bytes that reached the device, everything pending included.
    func bytesWritten() -> Int {
        sync()
        return Gauges.bytesWritten(device: device)
    }

    func remove() {
        for words in [["umount", mountPoint], ["losetup", "-d", "/dev/\(device)"]] {
            do { try Self.run(words[0], words.dropFirst()) } catch { print("  cannot tidy up: \(error)") }
        }
    }

    /// What a command prints.
    @discardableResult
    static func run(_ command: String, _ arguments: String...) throws -> String {
        try run(command, arguments[...])
    }

    @discardableResult
    private static func run(_ command: String, _ arguments: ArraySlice<String>) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [command] + arguments
        let output = Pipe()
        let errors = Pipe()
        process.standardOutput = output
        process.standardError = errors
        var environment = ProcessInfo.processInfo.environment
        environment["PATH"] = (environment["PATH"] ?? "") + ":/usr/sbin:/sbin"
        process.environment = environment
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        let complaint = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw WorkbenchError("\(command): \(complaint.trimmingCharacters(in: .whitespacesAndNewlines))")
        }
        return text
    }
}
