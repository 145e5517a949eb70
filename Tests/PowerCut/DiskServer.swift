import CFuse
import Foundation
import Synchronization
import Workbench

/// A file system with one directory, in which every file is a `RecordedDisk`.
///
/// The kernel's loop driver writes to these files and turns a flush of the block device into an fsync. They are opened
/// with direct I/O: whatever the driver writes is here when it goes on, and nothing lingers in a page cache.
final class DiskServer: Sendable {
    private static let root = fuse_ino_t(FUSE_ROOT_ID)

    private struct Files {
        var next = root + 1
        var disks: [fuse_ino_t: RecordedDisk] = [:]
    }

    let mountPoint: String
    private let files = Mutex(Files())
    private let session: Session
    private let hasEnded = DispatchSemaphore(value: 0)

    /// Only handed from thread to thread; libfuse guards what it holds.
    private struct Session: @unchecked Sendable { let pointer: OpaquePointer }

    /// Mounts it on an empty directory.
    ///
    /// - Throws: `WorkbenchError` where the kernel or our rights do not allow it.
    init(mountPoint: String) throws {
        self.mountPoint = mountPoint
        guard let server = Self.newSession() else { throw WorkbenchError("libfuse makes no session") }
        session = Session(pointer: server.session)
        server.holder.server = self
        guard fuse_session_mount(session.pointer, mountPoint) == 0 else {
            throw WorkbenchError("cannot mount a FUSE file system")
        }
        let session = session
        Thread.detachNewThread { [hasEnded] in
            fuse_session_loop(session.pointer)
            hasEnded.signal()
        }
    }

    /// Makes a disk appear; its path.
    func add(_ disk: RecordedDisk) -> String {
        let node = files.withLock { files -> fuse_ino_t in
            defer { files.next += 1 }
            files.disks[files.next] = disk
            return files.next
        }
        return "\(mountPoint)/disk-\(node)"
    }

    /// Makes it disappear; whoever has it open still gets errors only.
    func remove(_ path: String) {
        files.withLock { files in
            if let node = Self.node(path.split(separator: "/").last.map(String.init) ?? "") {
                files.disks[node] = nil
            }
        }
    }

    /// Unmounts it; returns when its thread has ended.
    func end() {
        fuse_session_exit(session.pointer)
        fuse_session_unmount(session.pointer)
        _ = hasEnded.wait(timeout: .now() + 5)
    }

    fileprivate func disk(_ node: fuse_ino_t) -> RecordedDisk? { files.withLock { $0.disks[node] } }

    fileprivate static func node(_ name: String) -> fuse_ino_t? {
        guard name.hasPrefix("disk-") else { return nil }
        return fuse_ino_t(name.dropFirst(5))
    }

    fileprivate func attributes(_ node: fuse_ino_t) -> stat? {
        var attributes = stat()
        attributes.st_ino = ino_t(node)
        attributes.st_nlink = 1
        if node == Self.root {
            attributes.st_mode = S_IFDIR | 0o700
            return attributes
        }
        guard let disk = disk(node) else { return nil }
        attributes.st_mode = S_IFREG | 0o600
        attributes.st_size = disk.byteCount
        attributes.st_blksize = Image.pageBytes
        attributes.st_blocks = disk.byteCount / 512
        return attributes
    }
}

// MARK: - What the kernel asks

extension DiskServer {
    /// What a request finds its server by; it stays as long as the process.
    fileprivate final class Holder {
        var server: DiskServer?
    }

    private static func newSession() -> (session: OpaquePointer, holder: Holder)? {
        let holder = Holder()
        var operations = fuse_lowlevel_ops()
        operations.lookup = { request, _, name in
            let node = name.flatMap { DiskServer.node(String(cString: $0)) }
            guard let node, let attributes = DiskServer.of(request)?.attributes(node) else {
                fuse_reply_err(request, ENOENT)
                return
            }
            var entry = fuse_entry_param()
            entry.ino = node
            entry.attr = attributes
            fuse_reply_entry(request, &entry)
        }
        operations.getattr = { request, node, _ in
            guard var attributes = DiskServer.of(request)?.attributes(node) else {
                fuse_reply_err(request, ENOENT)
                return
            }
            fuse_reply_attr(request, &attributes, 0)
        }
        operations.open = { request, node, file in
            guard DiskServer.of(request)?.disk(node) != nil, let file else {
                fuse_reply_err(request, ENOENT)
                return
            }
            file.pointee.direct_io = 1
            fuse_reply_open(request, file)
        }
        operations.read = { request, node, size, offset, _ in
            guard let disk = DiskServer.of(request)?.disk(node) else {
                fuse_reply_err(request, EIO)
                return
            }
            let bytes = disk.read(at: offset, count: size)
            _ = bytes.withUnsafeBytes { fuse_reply_buf(request, $0.baseAddress, $0.count) }
        }
        operations.write = { request, node, bytes, size, offset, _ in
            let written = UnsafeRawBufferPointer(start: bytes, count: size)
            guard DiskServer.of(request)?.disk(node)?.write(Array(written), at: offset) == true else {
                fuse_reply_err(request, EIO)
                return
            }
            fuse_reply_write(request, size)
        }
        operations.fsync = { request, node, _, _ in
            DiskServer.of(request)?.disk(node)?.flush()
            fuse_reply_err(request, 0)
        }
        operations.flush = { request, _, _ in fuse_reply_err(request, 0) }
        operations.release = { request, _, _ in fuse_reply_err(request, 0) }
        var name: UnsafeMutablePointer<CChar>? = strdup("powercut")
        let keeper = Unmanaged.passRetained(holder).toOpaque()
        let session = withUnsafeMutablePointer(to: &name) { names -> OpaquePointer? in
            var arguments = fuse_args(argc: 1, argv: names, allocated: 0)
            return session_of_file_system(&arguments, &operations, keeper)
        }
        free(name)
        return session.map { ($0, holder) }
    }

    private static func of(_ request: fuse_req_t?) -> DiskServer? {
        guard let pointer = fuse_req_userdata(request) else { return nil }
        return Unmanaged<Holder>.fromOpaque(pointer).takeUnretainedValue().server
    }
}
