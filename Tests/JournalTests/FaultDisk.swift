import GatewayCore

@testable import Journal

/// The power went out: nothing later happens in this life.
struct PowerCut: Error {}

/// What one call of the disk answers with an error, from the n-th call on.
struct Fault {
    enum Kind: CaseIterable { case create, write, sync, syncDirectory, rename, unlink, read }

    /// Calls until it strikes, of those that it is about.
    var after: Int
    var errorNumber: Int32
    /// nil for calls of any kind.
    var kind: Kind?
    /// How many calls it strikes.
    var times = 1

    static let noSpace: Int32 = 28
    static let broken: Int32 = 5
    static let readOnly: Int32 = 30
    /// EMFILE.
    static let noDescriptor: Int32 = 24
}

private struct Refused: Error { let errorNumber: Int32 }

/// A disk in memory that forgets like a real one. What was written and not synced may survive a power cut in
/// part, sector by sector; a name that was created, renamed or removed is only sure once the directory was
/// synced. Power can fail between any two steps, and any step can fail. A sync that fails leaves pages that are
/// clean and not on the disk: they are read back until the cache is dropped, and the next sync succeeds.
struct FaultDisk: StoreReader {
    private struct Inode {
        var durable: [UInt8] = []
        var current: [UInt8] = []
        var pending: [(offset: Int, bytes: [UInt8])] = []
    }
    private enum NameChange {
        case link(String, Int)
        case unlink(String)
        case rename(String, String, Int)
    }

    private var inodes: [Int: Inode] = [:]
    private var nextInode = 0
    private var names_: [String: Int] = [:]
    private var durableNames: [String: Int] = [:]
    private var nameChanges: [NameChange] = []
    /// Steps until the power fails.
    var stepsLeft = Int.max
    /// What the next operation of each kind fails with.
    var failWrites: Int32?
    var failFooters: Int32?
    /// The journal's reads that touch this byte of this file fail.
    var refusedByte: (name: String, offset: Int)?
    var fault: Fault?
    /// So many calls of recovery succeed; then one fails, or all do.
    var recoveryFault: (after: Int, isLasting: Bool)?
    /// Calls that a fault struck.
    private(set) var strikes = 0
    /// Files that were written to or synced again after a sync of theirs failed: there must be none.
    private(set) var distrusted: Set<String> = []
    private(set) var abused: [String] = []
    /// Decides what a write or a sync that fails leaves.
    private var dice = Dice(1)
    var space: FileSystemSpace?
    /// Leaves out what the journal relies on, to see that the tests notice.
    var skipsDirectorySync = false
    private(set) var syncs = 0
    /// By the journal.
    private(set) var bytesWritten = 0
    /// Of the journal and of recovery.
    var reads = 0

    private static let sector = 512

    init(formatted store: StoreID) {
        put(StoreFile.format.name, StoreFormat(store: store, createdWallMilliseconds: 0).encoded)
    }

    // MARK: Operations, step by step

    mutating func perform(_ operation: DiskOperation) throws -> DiskCompletion {
        if let failWrites {
            switch operation.action {
            case .write, .createSegment, .reuseSegment, .writeCheckpoint, .writePart, .publish:
                return DiskCompletion(token: operation.token, outcome: .failed(errorNumber: failWrites))
            case .writeFooter, .read, .delete, .retire, .makeReserve, .measureSpace: break
            }
        }
        var outcome = DiskCompletion.Outcome.done
        do { outcome = try carryOut(operation.action) } catch let refused as Refused {
            outcome = .failed(errorNumber: refused.errorNumber)
        }
        return DiskCompletion(token: operation.token, outcome: outcome, space: space)
    }

    private mutating func carryOut(_ action: DiskOperation.Action) throws -> DiskCompletion.Outcome {
        switch action {
        case .createSegment(let file, let page):
            try create(file.name)
            try write(file.name, 0, page)
            try sync(file.name)
            try syncDirectory()
        case .reuseSegment(let file, let free, let page):
            try write(free.name, 0, page)
            try sync(free.name)
            try rename(free.name, file.name)
            try syncDirectory()
        case .write(let file, let offset, let bytes):
            try write(file.name, offset, bytes)
            try sync(file.name)
        case .writeFooter(let file, let offset, let bytes):
            if let failFooters { return .failed(errorNumber: failFooters) }
            try write(file.name, offset, bytes)
        case .read(let file, let offset, let count):
            reads += 1
            try step(.read)
            if let refusedByte, refusedByte.name == file.name,
                (offset..<offset + count).contains(refusedByte.offset)
            {
                return .failed(errorNumber: 5)
            }
            return .read(bytes(of: file.name, offset, count))
        case .writeCheckpoint(let file, let bytes): try replace(file, bytes)
        case .makeReserve(let file, let bytes): try replace(file, Array(repeating: 0xA5, count: bytes))
        case .writePart(let file, let offset, let bytes):
            if offset == 0 {
                try create(file.name)
                distrusted.remove(file.name)
            }
            try write(file.name, offset, bytes)
            try sync(file.name)
        case .publish(let file, let part):
            try rename(part.name, file.name)
            try syncDirectory()
        case .delete(let files):
            for file in files where names_[file.name] != nil {
                try step(.unlink)
                names_[file.name] = nil
                distrusted.remove(file.name)
                nameChanges.append(.unlink(file.name))
            }
            try syncDirectory()
        case .retire(let segments):
            for id in segments { try rename(StoreFile.segment(id).name, StoreFile.free(id).name) }
            try syncDirectory()
        case .measureSpace: break
        }
        return .done
    }

    private mutating func replace(_ file: StoreFile, _ bytes: [UInt8]) throws {
        // The disk opens it whether it is there or not; a new inode is as good here.
        try create(file.temporaryName)
        distrusted.remove(file.temporaryName)
        try write(file.temporaryName, 0, bytes)
        try sync(file.temporaryName)
        try rename(file.temporaryName, file.name)
        try syncDirectory()
    }

    private mutating func step(_ kind: Fault.Kind) throws {
        guard stepsLeft > 0 else { throw PowerCut() }
        stepsLeft -= 1
        guard var fault, fault.kind == nil || fault.kind == kind else { return }
        // No room never keeps anybody from reading, unlinking or syncing a directory.
        if fault.errorNumber == Fault.noSpace, kind == .read || kind == .unlink { return }
        if fault.errorNumber == Fault.readOnly, kind == .read { return }
        fault.after -= 1
        self.fault = fault
        guard fault.after < 0 else { return }
        if -fault.after >= fault.times { self.fault = nil }
        strikes += 1
        throw Refused(errorNumber: fault.errorNumber)
    }

    private mutating func create(_ name: String) throws {
        try step(.create)
        nextInode += 1
        inodes[nextInode] = Inode()
        names_[name] = nextInode
        nameChanges.append(.link(name, nextInode))
    }

    private mutating func rename(_ old: String, _ new: String) throws {
        try step(.rename)
        let id = names_.removeValue(forKey: old)
        names_[new] = id
        if distrusted.remove(old) != nil { distrusted.insert(new) }
        if let id { nameChanges.append(.rename(old, new, id)) }
    }

    private mutating func write(_ name: String, _ offset: Int, _ bytes: [UInt8]) throws {
        if distrusted.contains(name) { abused.append(name) }
        var written = bytes
        var refused: Refused?
        do { try step(.write) } catch let error as Refused {
            // A short write, of which part is there.
            written = Array(bytes.prefix(dice.below(bytes.count + 1)))
            distrusted.insert(name)
            refused = error
        }
        if let id = names_[name], !written.isEmpty {
            bytesWritten += written.count
            inodes[id]?.pending.append((offset, written))
            inodes[id]?.current.overlay(written, at: offset)
        }
        if let refused { throw refused }
    }

    private mutating func sync(_ name: String) throws {
        if distrusted.contains(name) { abused.append(name) }
        do { try step(.sync) } catch let refused as Refused {
            // Any part of it reached the disk, or all; the pages are clean now, and nobody writes them again.
            distrusted.insert(name)
            if let id = names_[name] {
                var own = dice
                settle(id, &own)
                dice = own
            }
            throw refused
        }
        syncs += 1
        guard let id = names_[name], var inode = inodes[id] else { return }
        for write in inode.pending { inode.durable.overlay(write.bytes, at: write.offset) }
        inode.pending = []
        inodes[id] = inode
    }

    private mutating func syncDirectory() throws {
        try step(.syncDirectory)
        if skipsDirectorySync { return }
        durableNames = names_
        nameChanges = []
    }

    // MARK: Power cuts

    /// What is there after the power came back.
    mutating func losePower(_ dice: inout Dice) {
        // Mostly names change in order, and any number of the changes reached the disk; or any of them did.
        let isInOrder = dice.below(4) > 0
        let reached = isInOrder ? dice.below(nameChanges.count + 1) : nameChanges.count
        for change in nameChanges.prefix(reached) where isInOrder || dice.coin() {
            switch change {
            case .link(let name, let id): durableNames[name] = id
            case .unlink(let name): durableNames[name] = nil
            case .rename(let old, let new, let id):
                if durableNames[old] == id { durableNames[old] = nil }
                durableNames[new] = id
            }
        }
        nameChanges = []
        names_ = durableNames
        for id in inodes.keys.sorted() {
            settle(id, &dice)
            guard let inode = inodes[id] else { continue }
            inodes[id]?.current = inode.durable
        }
        distrusted = []
    }

    /// Lets any part of what was written and not synced reach the disk, or garbage in its place.
    private mutating func settle(_ id: Int, _ dice: inout Dice) {
        guard var inode = inodes[id] else { return }
        let leavesGarbage = dice.below(4) == 0
        for write in inode.pending {
            let keepsAll = dice.below(4) == 0
            for start in stride(from: 0, to: write.bytes.count, by: Self.sector) {
                let sector = Array(write.bytes[start..<min(start + Self.sector, write.bytes.count)])
                if keepsAll || dice.coin() {
                    inode.durable.overlay(sector, at: write.offset + start)
                } else if leavesGarbage {
                    let noise = sector.map { _ in UInt8(truncatingIfNeeded: dice.next()) }
                    inode.durable.overlay(noise, at: write.offset + start)
                }
            }
        }
        inode.pending = []
        inodes[id] = inode
    }

    // MARK: What tests look at and spoil

    mutating func put(_ name: String, _ bytes: [UInt8]) {
        nextInode += 1
        inodes[nextInode] = Inode(durable: bytes, current: bytes)
        names_[name] = nextInode
        durableNames[name] = nextInode
    }

    mutating func remove(_ name: String) {
        names_[name] = nil
        durableNames[name] = nil
    }

    func content(_ name: String) -> [UInt8] {
        guard let id = names_[name], let inode = inodes[id] else { return [] }
        return inode.current
    }

    private func bytes(of name: String, _ offset: Int, _ count: Int) -> [UInt8] {
        let all = content(name)
        guard offset < all.count else { return [] }
        return Array(all[offset..<min(offset + count, all.count)])
    }

    func fileNames() -> [String] { names_.keys.sorted() }

    // MARK: StoreReader

    mutating func names() -> [String] { fileNames() }

    private mutating func recoveryStep(_ name: String) throws(StoreReadFailure) {
        guard let fault = recoveryFault else { return }
        if fault.after > 0 {
            recoveryFault?.after -= 1
        } else {
            if !fault.isLasting { recoveryFault = nil }
            throw StoreReadFailure(name: name, errorNumber: Fault.broken)
        }
    }

    mutating func size(of name: String) throws(StoreReadFailure) -> Int {
        try recoveryStep(name)
        return content(name).count
    }

    mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8] {
        reads += 1
        try recoveryStep(name)
        return bytes(of: name, offset, count)
    }

    mutating func makeDurable(_ name: String) throws(StoreReadFailure) {
        try recoveryStep(name)
        // A new process opens it anew, and drops what the cache has.
        distrusted.remove(name)
        do { try sync(name) } catch { throw StoreReadFailure(name: name, errorNumber: 5) }
        if let id = names_[name], let inode = inodes[id] { inodes[id]?.current = inode.durable }
    }

    mutating func makeDirectoryDurable() throws(StoreReadFailure) {
        try recoveryStep(".")
        do { try syncDirectory() } catch { throw StoreReadFailure(name: ".", errorNumber: 5) }
    }
}

extension [UInt8] {
    fileprivate mutating func overlay(_ bytes: [UInt8], at offset: Int) {
        if count < offset + bytes.count {
            append(contentsOf: [UInt8](repeating: 0, count: offset + bytes.count - count))
        }
        withUnsafeMutableBytes { target in
            bytes.withUnsafeBytes { source in
                UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + bytes.count]).copyMemory(
                    from: source)
            }
        }
    }
}
