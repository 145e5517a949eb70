import Glibc
import Journal

/// Carries out the journal's operations, in order, on a thread of its own, so that no sync ever holds up the
/// gateway.
///
/// What was asked for while it was busy is taken at one go, and what came of it is handed back after each
/// operation that something may wait for, and at the end. A read is handed back at once too, so that the bytes of
/// a whole round are never held here.
// Unchecked: `queue`, `isStopping` and `isRunning` are touched only with `mutex` held, everything else only by the thread.
package final class DiskThread: @unchecked Sendable {
    private let directory: Directory
    /// Held, never read: the lock on the store goes with it and the directory.
    private let lock: File?
    private let deliver: @Sendable ([DiskCompletion]) -> Void
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var queue: [DiskOperation] = []
    private var isStopping = false
    private var isRunning = false
    private var thread = pthread_t()

    /// The segment that is written to. It stays open until a sync was answered: errors are told per open file.
    private var writing: (name: StoreFile, file: File)?
    private var reading: (name: StoreFile, file: File)?

    /// - Parameter deliver: called on the disk's thread with what was done, in order.
    init(
        directory: Directory, lock: File?, deliver: @escaping @Sendable ([DiskCompletion]) -> Void
    ) {
        self.directory = directory
        self.lock = lock
        self.deliver = deliver
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func start() throws(SystemError) {
        let own = Unmanaged.passRetained(self)
        let error = pthread_create(&thread, nil, diskThreadMain, own.toOpaque())
        guard error == 0 else {
            own.release()
            throw SystemError(number: error)
        }
        isRunning = true
    }

    /// Asks for operations; returns at once. From any thread.
    package func submit(_ operations: [DiskOperation]) {
        guard !operations.isEmpty else { return }
        pthread_mutex_lock(mutex)
        queue.append(contentsOf: operations)
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Waits until everything asked for is done and the thread has ended, and lets go of the files. The lock on
    /// the store goes with the last reference.
    package func stop() {
        pthread_mutex_lock(mutex)
        isStopping = true
        let mustJoin = isRunning
        isRunning = false
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
        if mustJoin { pthread_join(thread, nil) }
    }

    /// - Note: the body of the thread.
    fileprivate func run() {
        while let operations = next() {
            var done: [DiskCompletion] = []
            for operation in operations {
                done.append(perform(operation))
                switch operation.action {
                case .createSegment, .reuseSegment, .write, .writeCheckpoint, .read:
                    deliver(done)
                    done = []
                case .writeFooter, .delete, .retire, .makeReserve, .measureSpace, .writePart, .publish:
                    break
                }
            }
            if !done.isEmpty { deliver(done) }
        }
        writing = nil
        reading = nil
    }

    private func next() -> [DiskOperation]? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while queue.isEmpty, !isStopping { pthread_cond_wait(condition, mutex) }
        guard !queue.isEmpty else { return nil }
        let operations = queue
        queue = []
        return operations
    }

    fileprivate func perform(_ operation: DiskOperation) -> DiskCompletion {
        var outcome = DiskCompletion.Outcome.done
        var measures = true
        do {
            switch operation.action {
            case .createSegment(let file, let page):
                try createSegment(file, page)
            case .reuseSegment(let file, let free, let page):
                try reuseSegment(file, free, page)
            case .write(let file, let offset, let bytes):
                try write(file, offset, bytes)
            case .writeFooter(let file, let offset, let bytes):
                try openForWriting(file).write(bytes, at: offset)
            case .read(let file, let offset, let count):
                measures = false
                outcome = .read(try read(file, offset, count))
            case .writeCheckpoint(let file, let bytes):
                try directory.replace(file.name, with: bytes)
            case .writePart(let file, let offset, let bytes):
                try writePart(file, offset, bytes)
            case .publish(let file, let part):
                try directory.rename(part.name, to: file.name)
                try directory.sync()
            case .delete(let files):
                if let open = reading, files.contains(open.name) { reading = nil }
                for file in files { try directory.remove(file.name) }
                try directory.sync()
            case .retire(let segments):
                if let open = reading, case .segment(let id) = open.name, segments.contains(id) {
                    reading = nil
                }
                for id in segments {
                    try directory.rename(StoreFile.segment(id).name, to: StoreFile.free(id).name)
                }
                try directory.sync()
            case .makeReserve(let file, let bytes):
                try directory.fill(file.name, bytes: bytes)
            case .measureSpace:
                break
            }
        } catch {
            outcome = .failed(errorNumber: error.number)
        }
        return DiskCompletion(
            token: operation.token, outcome: outcome, space: measures ? directory.space() : nil)
    }

    private func createSegment(_ name: StoreFile, _ page: [UInt8]) throws(SystemError) {
        let file = try directory.openFile(name.name, O_RDWR | O_CREAT | O_EXCL)
        try file.write(page, at: 0)
        try file.sync()
        try directory.sync()
        writing = (name, file)
    }

    /// The name changes only once the page under it is durable.
    private func reuseSegment(
        _ name: StoreFile, _ free: StoreFile, _ page: [UInt8]
    ) throws(SystemError) {
        let file = try directory.openFile(free.name, O_RDWR)
        try file.write(page, at: 0)
        // Nothing but the page is new: neither size nor blocks.
        try file.syncData()
        try directory.rename(free.name, to: name.name)
        try directory.sync()
        writing = (name, file)
    }

    private func write(_ name: StoreFile, _ offset: Int, _ bytes: [UInt8]) throws(SystemError) {
        let file = try openForWriting(name)
        do {
            try file.write(bytes, at: offset)
            try file.syncData()
        } catch {
            // Never written or synced again: the next sync might call a success what is lost. What the cache
            // shows is not to be believed either.
            writing = nil
            file.forgetCache()
            throw error
        }
    }

    /// What fails is deleted, never written again.
    private func writePart(_ name: StoreFile, _ offset: Int, _ bytes: [UInt8]) throws(SystemError) {
        let file = try directory.openFile(name.name, O_WRONLY | O_CREAT | (offset == 0 ? O_TRUNC : 0))
        try file.write(bytes, at: offset)
        try file.syncData()
    }

    /// The journal only writes to the segment that it created last.
    private func openForWriting(_ name: StoreFile) throws(SystemError) -> File {
        guard let writing, writing.name == name else { throw SystemError(number: EBADF) }
        return writing.file
    }

    private func read(_ name: StoreFile, _ offset: Int, _ count: Int) throws(SystemError) -> [UInt8] {
        if let writing, writing.name == name { return try writing.file.read(at: offset, count: count) }
        if let reading, reading.name == name { return try reading.file.read(at: offset, count: count) }
        // First closed: where descriptors are short, there is this one.
        reading = nil
        let file = try directory.openFile(name.name, O_RDONLY)
        reading = (name, file)
        return try file.read(at: offset, count: count)
    }
}

/// Carries out the journal's operations on the caller's own thread.
package struct InlineDisk {
    private let thread: DiskThread

    init(directory: Directory, lock: File?) {
        thread = DiskThread(directory: directory, lock: lock) { _ in }
    }

    /// - Complexity: blocks until it is done
    package func carryOut(_ operation: DiskOperation) -> DiskCompletion { thread.perform(operation) }
}

private func diskThreadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if let argument { Unmanaged<DiskThread>.fromOpaque(argument).takeRetainedValue().run() }
    return nil
}
