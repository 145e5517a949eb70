import Foundation
import Workbench

/// A machine with one disk: ext4 on a loop device on a `RecordedDisk`, and the gateway on that.
final class Bench {
    let place: Workplace
    let gateway: Gateway
    let cloud: CloudBroker?
    private let server: DiskServer
    private let mountPoint: String
    private var mounted: String?

    static let diskBytes = 48 << 20

    /// - Throws: `NotToBeHad` where FUSE, loop devices or the right to mount are missing.
    init(_ executable: String, _ place: Workplace, hasCloud: Bool, durability: String) throws {
        self.place = place
        mountPoint = place.file("disk")
        let served = place.file("served")
        for path in [mountPoint, served] {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }
        do { server = try DiskServer(mountPoint: served) } catch { throw NotToBeHad("\(error)") }
        cloud = hasCloud ? try CloudBroker(in: place) : nil
        let uplinks = cloud.map { [Gateway.Uplink(port: $0.port, routes: Cast.routes)] } ?? []
        gateway = try Gateway(
            executable, in: place, stateAt: "\(mountPoint)/state", uplinks: uplinks,
            journal: ["durability: \(durability)", "segment-size: 256 KiB", "size-limit: 32 MiB"])
    }

    /// A disk with an empty ext4 on it.
    func newDisk() throws -> Image {
        let path = place.file("blank")
        guard FileManager.default.createFile(atPath: path, contents: nil) else {
            throw WorkbenchError("cannot write \(path)")
        }
        guard truncate(path, Self.diskBytes) == 0 else { throw WorkbenchError("no room for \(path)") }
        try run(
            "/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E",
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0", path)
        var image = Image(byteCount: Self.diskBytes)
        image.write([UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))[...], at: 0)
        try FileManager.default.removeItem(atPath: path)
        return image
    }

    /// Puts the disk in; the kernel replays the file system's own journal.
    ///
    /// - Throws: `WorkbenchError` when the kernel does not mount it.
    func mount(_ disk: RecordedDisk) throws {
        let path = server.add(disk)
        mounted = path
        do {
            try run("/bin/mount", "-t", "ext4", "-o", "loop", path, mountPoint)
        } catch {
            server.remove(path)
            mounted = nil
            throw error
        }
    }

    /// Takes the disk out, after the gateway was killed. What the kernel then still writes nobody looks at.
    func unmount() throws {
        gateway.kill()
        guard let path = mounted else { return }
        mounted = nil
        defer { server.remove(path) }
        do { try run("/bin/umount", mountPoint) } catch { try run("/bin/umount", "-l", mountPoint) }
    }

    func end() {
        do { try unmount() } catch { say("powercut: \(error)") }
        cloud?.stop()
        server.end()
    }

    @discardableResult
    private func run(_ command: String...) throws -> String {
        let log = place.file("command-\(UInt32.random(in: 0 ... .max))")
        defer { unlink(log) }
        let child = try ChildProcess(command[0], Array(command.dropFirst()), log: log)
        guard child.ended(within: 30) == .exited(0) else {
            throw WorkbenchError("\(command.joined(separator: " ")): \(child.log)")
        }
        return child.log
    }
}

/// Why the rig cannot run here, in words.
struct NotToBeHad: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A line for whoever watches, at once.
func say(_ text: String) {
    print(text)
    fflush(nil)
}
