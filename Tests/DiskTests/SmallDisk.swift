import Foundation
import Workbench

/// An ext4 of its own in a file, for a test that fills it or breaks it.
final class SmallDisk {
    let mountPoint: String
    private let base: String

    /// nil where loop devices or the right to mount are not to be had.
    init?(megabytes: Int, options: String = "") {
        base = FileManager.default.temporaryDirectory.path + "/tidegate-loop-" + UUID().uuidString
        mountPoint = base + "/disk"
        do {
            try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
        } catch { return nil }
        let image = base + "/image"
        let isMounted =
            Self.run("truncate", "-s", "\(megabytes)M", image) && Self.run("mkfs.ext4", "-q", image)
            && Self.run("mount", "-o", "loop" + options, image, mountPoint)
        guard isMounted else {
            print("skipped what needs a small disk: no loop devices, no mkfs.ext4, or not root")
            Self.run("rm", "-rf", base)
            return nil
        }
    }

    /// What its device was given to write since it was made, in bytes; nil where the kernel does not tell.
    func bytesWritten() throws -> Int? {
        let mounts = try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
        guard let line = mounts.split(separator: "\n").first(where: { $0.contains(" \(mountPoint) ") }),
            let device = line.split(separator: " ").first(where: { $0.hasPrefix("/dev/loop") }),
            case let path = "/sys/block/" + device.dropFirst(5) + "/stat",
            FileManager.default.fileExists(atPath: path)
        else { return nil }
        let fields = try String(contentsOfFile: path, encoding: .utf8).split(separator: " ")
        return fields.count > 6 ? Int(fields[6]).map { $0 * 512 } : nil
    }

    /// Makes it read-only or writable again, whoever has files open for reading; false where somebody has one open for
    /// writing.
    func remount(readOnly: Bool) -> Bool {
        Self.run("mount", "-o", readOnly ? "remount,ro" : "remount,rw", mountPoint)
    }

    /// What the kernel does to a file system that it found damaged: it is read-only from now on, also for files that are
    /// open for writing.
    func abort() -> Bool { Self.run("mount", "-o", "remount,abort", mountPoint) }

    /// Unmounts it, which needs all files closed, and mounts it anew, as a restart of the machine does.
    func mountAnew() -> Bool {
        Self.run("umount", mountPoint) && Self.run("mount", "-o", "loop", base + "/image", mountPoint)
    }

    /// Fills what is left, to the last block.
    static func fill(_ path: String) throws {
        guard FileManager.default.createFile(atPath: path, contents: nil) else {
            throw CocoaError(.fileWriteUnknown)
        }
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        for size in [1 << 20, 64 << 10, 4096, 1024] {
            let bytes = Data(repeating: 0x5A, count: size)
            while true {
                do { try file.write(contentsOf: bytes) } catch { break }
            }
        }
        try file.close()
    }

    deinit {
        // Lazily: a test that failed may have left something open.
        Self.run("umount", "-l", mountPoint)
        Self.run("rm", "-rf", base)
    }

    @discardableResult
    private static func run(_ command: String...) -> Bool {
        do {
            return try ChildProcess.run("/usr/bin/env", command).ending == .exited(0)
        } catch { return false }
    }
}
