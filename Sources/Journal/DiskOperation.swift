/// Names an operation until its completion.
package struct OperationToken: Hashable, Sendable {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
}

/// What the journal asks of the disk. Operations are carried out in the order they were asked for, and each
/// is answered once.
package struct DiskOperation: Sendable {
    package let token: OperationToken
    package let action: Action

    package init(token: OperationToken, action: Action) {
        self.token = token
        self.action = action
    }

    package enum Action: Sendable {
        /// Create exclusively, write the page, fsync the file, fsync the directory. Durable when answered.
        case createSegment(StoreFile, page: [UInt8])
        /// Write the page over the first one of a free file, fsync it, rename it to the segment, fsync the
        /// directory: in this order a segment's name never stands for a page that is not its own. Durable when
        /// answered.
        case reuseSegment(StoreFile, from: StoreFile, page: [UInt8])
        /// Write and fdatasync as one unit. Durable when answered.
        case write(StoreFile, offset: Int, bytes: [UInt8])
        /// Write a footer behind the last batch of the segment that was written to last, and no more: what becomes
        /// of it in a power cut, or of an error, does not matter.
        case writeFooter(StoreFile, offset: Int, bytes: [UInt8])
        /// Answered with the bytes, fewer than asked for only at the end of the file.
        case read(StoreFile, offset: Int, count: Int)
        /// Write under the temporary name, fsync, rename, fsync the directory. Durable when answered.
        case writeCheckpoint(StoreFile, bytes: [UInt8])
        /// Write at the offset of a file, which is created empty with offset 0, and fdatasync it. Durable when
        /// answered, but for its name.
        case writePart(StoreFile, offset: Int, bytes: [UInt8])
        /// Rename a file whose parts are all durable, fsync the directory. Durable when answered.
        case publish(StoreFile, from: StoreFile)
        /// Unlink, then fsync the directory; what is not there is deleted already.
        case delete([StoreFile])
        /// Rename these segments to the free files of the same numbers, then fsync the directory.
        case retire([UInt64])
        /// Write so many bytes that cannot be compressed, as a checkpoint is written.
        case makeReserve(StoreFile, bytes: Int)
        /// Only to be told the space.
        case measureSpace
    }
}

/// The disk's answer.
package struct DiskCompletion: Sendable {
    package let token: OperationToken
    package let outcome: Outcome
    /// Measured after every operation that changes it, and where it was asked for.
    package let space: FileSystemSpace?

    package init(token: OperationToken, outcome: Outcome, space: FileSystemSpace? = nil) {
        self.token = token
        self.outcome = outcome
        self.space = space
    }

    package enum Outcome: Hashable, Sendable {
        case done
        case read([UInt8])
        case failed(errorNumber: Int32)
    }
}

/// In bytes, as `statvfs` has them.
package struct FileSystemSpace: Hashable, Sendable {
    package var free: UInt64
    package var total: UInt64

    package init(free: UInt64, total: UInt64) {
        self.free = free
        self.total = total
    }
}
