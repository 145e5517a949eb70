import Foundation

/// A directory for one run, on a real disk, with everything that run writes.
package struct Workplace: Sendable {
    package let path: String

    /// Makes a new directory under `parent`.
    package init(_ name: String, under parent: String = "/var/tmp") throws {
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        path = "\(parent)/\(name)-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    package func file(_ name: String) -> String { "\(path)/\(name)" }

    package func write(_ text: String, to name: String) throws -> String {
        let place = URL(fileURLWithPath: file(name))
        try FileManager.default.createDirectory(
            at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: place)
        return place.path
    }

    package func remove() {
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            FileHandle.standardError.write(Data("cannot remove \(path): \(error)\n".utf8))
        }
    }

    /// Whether what is written here would not survive a power cut: a container's overlay, or a tmpfs.
    package var isVolatile: Bool {
        // A line of mountinfo: id, parent, device, root, mount point, options … "-", type, source, options.
        let mounts = Self.text(of: "/proc/self/mountinfo").split(separator: "\n").map {
            $0.split(separator: " ")
        }
        let place = URL(fileURLWithPath: path).resolvingSymlinksInPath().path + "/"
        let holding = mounts.filter { $0.count > 6 && place.hasPrefix($0[4] == "/" ? "/" : "\($0[4])/") }
        guard let mount = holding.max(by: { $0[4].count < $1[4].count }),
            let dash = mount.firstIndex(of: "-"), dash + 1 < mount.count
        else { return false }
        return ["overlay", "tmpfs"].contains(mount[dash + 1])
    }

    /// What stands in a file; empty when it is not there.
    static func text(of file: String) -> String {
        String(decoding: FileManager.default.contents(atPath: file) ?? Data(), as: UTF8.self)
    }
}
