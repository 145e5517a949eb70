/// What one step of the disk answers with an error, from the n-th on.
package struct DiskFault: Hashable, Sendable {
    package enum Step: Hashable, Sendable, CaseIterable {
        case create, write, sync, syncDirectory, rename, unlink, read
    }

    /// Steps until it strikes, of those that it is about.
    package var after: Int
    package var errorNumber: Int32
    /// nil for steps of any kind.
    package var step: Step?
    /// How many it strikes.
    package var times = 1
    /// When it is over, whatever is left of `times`; microseconds.
    package var endsAt: UInt64?

    package static let noSpace: Int32 = 28
    package static let broken: Int32 = 5
    package static let readOnly: Int32 = 30
    /// EMFILE.
    package static let noDescriptor: Int32 = 24

    package init(after: Int, errorNumber: Int32, step: Step? = nil, times: Int = 1) {
        self.after = after
        self.errorNumber = errorNumber
        self.step = step
        self.times = times
    }

    /// Whether it strikes this step; counts it.
    mutating func strikes(_ kind: Step) -> Bool {
        guard step == nil || step == kind, times > 0 else { return false }
        // No room never keeps anybody from reading, unlinking or syncing a directory.
        if errorNumber == Self.noSpace, kind == .read || kind == .unlink || kind == .syncDirectory {
            return false
        }
        if errorNumber == Self.readOnly, kind == .read { return false }
        // Where no file is opened none is wanted.
        if errorNumber == Self.noDescriptor, kind != .read, kind != .create { return false }
        after -= 1
        guard after < 0 else { return false }
        times -= 1
        return true
    }
}

/// Bytes that were durable and are not what they were.
package struct DiskDamage: Hashable, Sendable {
    package var file: String
    package var range: Range<Int>
    /// What stood there.
    package var before: [UInt8]
}
