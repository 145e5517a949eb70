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
    private let lock: File?

    private static let lockName = "LOCK"

    /// Locks the directory, creating it where it is missing, and recovers what it holds.
    ///
    /// - Parameters:
    ///   - path: the store's own directory; its parent must exist.
    ///   - mustExist: begin no store where there is none.
    ///   - allowVolatile: accept file systems that keep nothing through a power cut, for tests and containers.
    ///   - body: gets every Record: those of the checkpoint at `Position.zero`, then the log's in order.
    ///   - sealed: told of each stretch of the log that the checkpoint did not know as complete, behind its last
    ///     Record.
    /// - Complexity: O(checkpoint + segments it does not cover); blocks on the disk
    package static func open(
        path: String, mustExist: Bool = false, allowVolatile: Bool = false,
        _ body: (Record, Position) -> Void, sealed: (Stretch, [SessionID]) -> Void = { _, _ in }
    ) throws(StoreError) -> DiskStore {
        let directory = try mustExist ? existing(path) : made(path)
        // Before anything is read, so that nobody changes it meanwhile.
        let (lock, lockProblem) = try takeLock(directory)
        let kind = try fileSystemKind(directory)
        var warnings = try checkFileSystem(kind, directory, allowVolatile) + mountWarnings(directory)
        if let lockProblem { warnings.append(lockProblem) }
        warnings += try begin(directory)
        var reader = PatientReader(DiskReader(directory: directory)) { sleep($1) }
        var log: RecoveredLog
        do { log = try Recovery.recover(&reader, body, sealed: sealed) } catch {
            throw explained(error, path)
        }
        // From here on nothing fails the start: what can be read is served (promise P6).
        let problems = tidy(directory, &log)
        warnings += problems
        if !log.report.damaged.isEmpty || !log.report.setAside.isEmpty && problems.isEmpty {
            warnings += Quarantine(directory: directory).keep(log.report.damaged)
        }
        log.space = directory.space()
        log.recycles = kind?.recycles ?? false
        return DiskStore(recovered: log, warnings: warnings, directory: directory, lock: lock)
    }

    /// The same, with the state that its Records come to: what is complete goes out of memory as it is read, however
    /// long the log is.
    package static func recover(
        path: String, mustExist: Bool = false, allowVolatile: Bool = false
    ) throws(StoreError) -> (store: DiskStore, state: DurableState) {
        var state = DurableState()
        let store = try open(
            path: path, mustExist: mustExist, allowVolatile: allowVolatile, { state.apply($0, at: $1) },
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

    private static func made(_ path: String) throws(StoreError) -> Directory {
        do { return try Directory(path: path) } catch {
            throw .cannot("open the state directory", path: path, error)
        }
    }

    /// A directory in which there is a store.
    static func existing(_ path: String) throws(StoreError) -> Directory {
        let directory: Directory
        let holdsStore: Bool
        do {
            directory = try Directory(existing: path)
            holdsStore = try directory.holdsStore()
        } catch {
            throw .cannot("open the state directory", path: path, error)
        }
        guard holdsStore else { throw .noStore(path: path) }
        return directory
    }

    /// Locks the directory itself, and in it the file that says who did. The directory alone is enough where the file
    /// cannot be had: on a full or read-only disk, or because something else has its name. Both last as long as they
    /// are open: a process that dies, however, lets go of them.
    ///
    /// - Returns: the file, and what an operator should know where there is none.
    private static func takeLock(_ directory: Directory) throws(StoreError) -> (File?, problem: String?) {
        let path = directory.path + "/" + lockName
        let whole = directory.lock()
        if whole == .takenByAnother { throw .locked(path: directory.path, holder: holder(directory)) }
        do {
            let file = try directory.openFile(lockName, O_RDWR | O_CREAT | O_NONBLOCK)
            switch file.lock() {
            case .taken: break
            case .takenByAnother: throw StoreError.locked(path: directory.path, holder: holder(directory))
            case .impossible(let error): throw error
            }
            // In place, which needs no room; what is behind the end of the line was there before.
            try file.write(Array("process \(getpid())\n".utf8), at: 0)
            return (file, nil)
        } catch let error as StoreError {
            throw error
        } catch let error as SystemError {
            if case .impossible = whole { throw .cannot("lock", path: path, error) }
            return (nil, "\(path) cannot be written (\(error)): the directory is locked without it")
        } catch {
            preconditionFailure("only these two are thrown")
        }
    }

    /// What the one who has the lock wrote, for people only.
    private static func holder(_ directory: Directory) -> String {
        do {
            let bytes = try directory.openFile(lockName, O_RDONLY | O_NONBLOCK).read(at: 0, count: 64)
            return String(decoding: bytes.prefix { $0 != 10 }, as: UTF8.self)
        } catch {
            return "which one is not known"
        }
    }

    /// Writes `FORMAT` where there is no log that could say whose store this is, so that nothing is lost by it.
    ///
    /// - Returns: what an operator should know.
    private static func begin(_ directory: Directory) throws(StoreError) -> [String] {
        do {
            let names = try directory.names()
            let ofLog = names.filter { StoreFile(name: $0)?.isOfLog == true }
            guard names.contains(StoreFile.format.name) else {
                // Without FORMAT they may be somebody else's.
                if ofLog.isEmpty { try writeFormat(newStore(), directory) }
                return []
            }
            // Its log knows too, whatever has become of FORMAT: recovery asks it.
            if ofLog.contains(where: { mayHoldLog($0, directory) }) { return [] }
            if try knowsItsStore(directory) { return [] }
            // Kept, and replaced at once: without any FORMAT this would be another's directory.
            let problems = Quarantine(directory: directory)
                .keep([.init(file: StoreFile.format.name, bytes: 0..<pageBytes)])
            return try problems + rewriteFormat(newStore(), directory)
                + ["FORMAT was damaged, and there is no log yet: the store begins anew"]
        } catch {
            throw .cannot("begin a store in", path: directory.path, error)
        }
    }

    /// What cannot be read now is not thrown away.
    private static func mayHoldLog(_ name: String, _ directory: Directory) -> Bool {
        do {
            let beginning = try directory.openFile(name, O_RDONLY | O_NONBLOCK)
                .read(at: 0, count: pageBytes + 1)
            return StoreFile(name: name)?.mayHoldLog(beginning: beginning) ?? false
        } catch {
            return true
        }
    }

    /// Whether `FORMAT` can be read, or is of another version, which recovery says.
    private static func knowsItsStore(_ directory: Directory) throws(SystemError) -> Bool {
        let page: [UInt8]
        do {
            page = try directory.openFile(StoreFile.format.name, O_RDONLY | O_NONBLOCK)
                .read(at: 0, count: pageBytes)
        } catch {
            guard error.number == EISDIR else { throw error }
            return false
        }
        do {
            _ = try StoreFormat(decoding: page)
            return true
        } catch .unknownFeatures {
            return true
        } catch {
            return false
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

    private static func newStore() -> StoreID {
        let random = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
        guard let store = StoreID(random) else { preconditionFailure("these are 16 bytes") }
        return store
    }

    /// Writes `FORMAT` in the place of a damaged one, which may be a directory.
    ///
    /// - Returns: what did not work, in words.
    private static func rewriteFormat(_ store: StoreID, _ directory: Directory) throws(SystemError)
        -> [String]
    {
        do throws(SystemError) {
            try writeFormat(store, directory)
            return []
        } catch {
            guard error.number == EISDIR else { throw error }
        }
        let problems = Quarantine(directory: directory).putAside([StoreFile.format.name])
        try writeFormat(store, directory)
        return problems
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

    /// Puts in order what recovery found. Nothing here changes what the next recovery finds, so that what cannot be
    /// done now is no reason not to start.
    ///
    /// - Returns: what did not work, in words.
    private static func tidy(_ directory: Directory, _ log: inout RecoveredLog) -> [String] {
        var problems: [String] = []
        if log.report.formatIsDamaged {
            do { problems += try rewriteFormat(log.store, directory) } catch {
                problems.append("cannot write \(directory.path)/\(StoreFile.format.name) anew: \(error)")
            }
        }
        for name in log.report.unfinished {
            do { try directory.remove(name) } catch {
                problems.append("cannot remove \(directory.path)/\(name): \(error)")
                if let file = StoreFile(name: name) { log.leftOver.append(file) }
            }
        }
        if !log.report.unfinished.isEmpty {
            do { try directory.sync() } catch { problems.append("cannot sync \(directory.path): \(error)") }
        }
        return problems + Quarantine(directory: directory).putAside(log.report.setAside)
    }
}
