import GatewayCore
import Glibc
import Journal

/// A store in a directory: locked, checked and recovered in one go, before anything else happens.
package struct DiskStore: Sendable {
    /// Where the journal goes on.
    package let recovered: RecoveredLog
    /// What an operator should know and can live with.
    package let warnings: [String]
    private let directory: Directory
    private let lock: File

    private static let lockName = "LOCK"

    /// Locks the directory, creating it where it is missing, and recovers what it holds.
    ///
    /// - Parameters:
    ///   - path: the store's own directory; its parent must exist.
    ///   - allowVolatile: accept file systems that keep nothing through a power cut, for tests and containers.
    ///   - body: gets every Record: those of the checkpoint at `Position.zero`, then the log's in order.
    ///   - sealed: told of each stretch of the log that the checkpoint did not know as complete, behind its last
    ///     Record.
    /// - Complexity: O(checkpoint + segments it does not cover); blocks on the disk
    package static func open(
        path: String, allowVolatile: Bool = false, _ body: (Record, Position) -> Void,
        sealed: (Stretch, [SessionID]) -> Void = { _, _ in }
    ) throws(StoreError) -> DiskStore {
        let directory: Directory
        do { directory = try Directory(path: path) } catch {
            throw .cannot("open the state directory", path: path, error)
        }
        // Before anything is read, so that nobody changes it meanwhile.
        let lock = try takeLock(directory)
        let kind = try fileSystemKind(directory)
        var warnings = try checkFileSystem(kind, directory, allowVolatile) + mountWarnings(directory)
        do {
            if try !directory.names().contains(where: { StoreFile(name: $0) != nil }) {
                try create(directory)
            }
        } catch {
            throw .cannot("begin a store in", path: path, error)
        }
        var reader = DiskReader(directory: directory)
        var log: RecoveredLog
        do { log = try Recovery.recover(&reader, body, sealed: sealed) } catch {
            throw explained(error, path)
        }
        do { try tidy(directory, log) } catch { throw .cannot("tidy up", path: path, error) }
        if !log.report.damaged.isEmpty || !log.report.setAside.isEmpty {
            warnings += Quarantine(directory: directory).keep(log.report.damaged)
        }
        log.space = directory.space()
        log.recycles = kind?.recycles ?? false
        return DiskStore(recovered: log, warnings: warnings, directory: directory, lock: lock)
    }

    /// The same, with the state that its Records come to: what is complete goes out of memory as it is read, however
    /// long the log is.
    package static func recover(
        path: String, allowVolatile: Bool = false
    ) throws(StoreError) -> (store: DiskStore, state: DurableState) {
        var state = DurableState()
        let store = try open(
            path: path, allowVolatile: allowVolatile, { state.apply($0, at: $1) },
            sealed: { state.seal($0, queues: $1) })
        return (store, state)
    }

    /// Starts the thread that does what the journal asks for. Once for each store.
    ///
    /// - Parameter deliver: called on that thread with what was done, in order.
    package func start(deliver: @escaping @Sendable ([DiskCompletion]) -> Void) throws(StoreError)
        -> DiskThread
    {
        let thread = DiskThread(directory: directory, lock: lock, deliver: deliver)
        do { try thread.start() } catch { throw .cannot("start a thread for", path: directory.path, error) }
        return thread
    }

    /// The same without a thread: for a command that has nothing else to do while the disk works.
    package func inline() -> InlineDisk { InlineDisk(directory: directory, lock: lock) }

    /// Of the file system now; nil where it does not say.
    package func space() -> FileSystemSpace? { directory.space() }

    // MARK: Before recovery

    /// The lock lasts as long as the file is open: a process that dies, however, lets go of it.
    private static func takeLock(_ directory: Directory) throws(StoreError) -> File {
        do {
            let file = try directory.openFile(lockName, O_RDWR | O_CREAT)
            guard try file.lock() else {
                let text = String(
                    decoding: try file.read(at: 0, count: 64).prefix { $0 != 10 }, as: UTF8.self)
                throw StoreError.locked(path: directory.path, holder: text)
            }
            try file.truncate()
            try file.write(Array("process \(getpid())\n".utf8), at: 0)
            return file
        } catch let error as StoreError {
            throw error
        } catch let error as SystemError {
            throw .cannot("lock", path: directory.path + "/" + lockName, error)
        } catch {
            preconditionFailure("only these two are thrown")
        }
    }

    private static func fileSystemKind(_ directory: Directory) throws(StoreError) -> FileSystemKind? {
        do { return FileSystemKind(rawValue: try directory.fileSystemKind()) } catch {
            throw .cannot("examine the file system of", path: directory.path, error)
        }
    }

    private static func checkFileSystem(
        _ kind: FileSystemKind?, _ directory: Directory, _ allowVolatile: Bool
    ) throws(StoreError) -> [String] {
        switch kind {
        case .tmpfs, .ramfs, .overlayfs:
            let name = kind.map { "\($0)" } ?? ""
            guard allowVolatile else { throw .volatileFileSystem(path: directory.path, kind: name) }
            return ["\(directory.path) is on \(name): a power cut may lose everything that was acknowledged."]
        case .btrfs:
            return [
                """
                \(directory.path) is on btrfs, which writes some ten times more flash for each commit than ext4, \
                and may run out of room when it has some left. Better put `state` on ext4, xfs or f2fs.
                """
            ]
        case .ext4, .xfs, nil:
            return []
        }
    }

    /// None where the kernel does not say how the file system is mounted.
    private static func mountWarnings(_ directory: Directory) -> [String] {
        do {
            let device = try directory.device()
            let text = String(decoding: try Directory.readAll("/proc/self/mountinfo"), as: UTF8.self)
            let mount = MountOptions(mountInfo: text, major: device.major, minor: device.minor)
            return mount?.warnings(path: directory.path) ?? []
        } catch {
            return []
        }
    }

    /// What `statfs` calls the file systems that need a word.
    private enum FileSystemKind: UInt64 {
        case tmpfs = 0x0102_1994
        case ramfs = 0x8584_58F6
        case overlayfs = 0x794C_7630
        case btrfs = 0x9123_683E
        case ext4 = 0xEF53
        case xfs = 0x5846_5342

        /// Whether overwriting a file costs less than growing one, and needs no room. It does not where every write
        /// goes to a new place (f2fs, UBIFS, btrfs).
        var recycles: Bool {
            switch self {
            case .ext4, .xfs: true
            case .tmpfs, .ramfs, .overlayfs, .btrfs: false
            }
        }
    }

    private static func create(_ directory: Directory) throws(SystemError) {
        let random = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
        guard let store = StoreID(random) else { preconditionFailure("these are 16 bytes") }
        try writeFormat(store, directory)
    }

    private static func writeFormat(_ store: StoreID, _ directory: Directory) throws(SystemError) {
        let format = StoreFormat(store: store, createdWallMilliseconds: BootClock.wall().milliseconds)
        try directory.replace(StoreFile.format.name, with: format.encoded)
    }

    // MARK: After recovery

    static func explained(_ error: RecoveryError, _ path: String) -> StoreError {
        switch error {
        case .noStore: .foreignDirectory(path: path)
        case .unknownFeatures(let file, let bits): .unknownFeatures(path: path + "/" + file, bits: bits)
        case .unknownRecordType(let file, let type): .unknownRecordType(path: path + "/" + file, type: type)
        case .unreadable(let failure):
            .cannot("read", path: path + "/" + failure.name, SystemError(number: failure.errorNumber))
        }
    }

    /// Nothing here changes what the next recovery finds.
    private static func tidy(_ directory: Directory, _ log: RecoveredLog) throws(SystemError) {
        let report = log.report
        if report.formatIsDamaged { try writeFormat(log.store, directory) }
        for name in report.unfinished { try directory.remove(name) }
        if !report.setAside.isEmpty {
            try directory.makeSubdirectory(Quarantine.name)
            for name in report.setAside { try directory.rename(name, to: Quarantine.name + "/" + name) }
            try directory.syncSubdirectory(Quarantine.name)
        }
        if !report.unfinished.isEmpty || !report.setAside.isEmpty { try directory.sync() }
    }
}
