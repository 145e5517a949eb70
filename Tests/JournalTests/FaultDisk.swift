import GatewayCore

@testable import Journal

/// The power went out: nothing later happens in this life.
struct PowerCut: Error {}

/// A disk in memory that forgets like a real one. What was written and not synced may survive a power cut in
/// part, sector by sector; a name that was created, renamed or removed is only sure once the directory was
/// synced. Power can fail between any two steps.
struct FaultDisk: StoreReader {
    private struct Inode {
        var durable: [UInt8] = []
        var current: [UInt8] = []
        var pending: [(offset: Int, bytes: [UInt8])] = []
    }
    private enum NameChange {
        case link(String, Int)
        case unlink(String)
        case rename(String, String)
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
    var space: FileSystemSpace?
    /// Leaves out what the journal relies on, to see that the tests notice.
    var skipsDirectorySync = false
    private(set) var syncs = 0
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
            case .write, .createSegment, .writeCheckpoint:
                return DiskCompletion(token: operation.token, outcome: .failed(errorNumber: failWrites))
            case .writeFooter, .read, .delete, .measureSpace: break
            }
        }
        var outcome = DiskCompletion.Outcome.done
        switch operation.action {
        case .createSegment(let file, let page):
            try create(file.name)
            try write(file.name, 0, page)
            try sync(file.name)
            try syncDirectory()
        case .write(let file, let offset, let bytes):
            try write(file.name, offset, bytes)
            try sync(file.name)
        case .writeFooter(let file, let offset, let bytes):
            if let failFooters {
                return DiskCompletion(token: operation.token, outcome: .failed(errorNumber: failFooters))
            }
            try write(file.name, offset, bytes)
        case .read(let file, let offset, let count):
            reads += 1
            if let refusedByte, refusedByte.name == file.name,
                (offset..<offset + count).contains(refusedByte.offset)
            {
                return DiskCompletion(token: operation.token, outcome: .failed(errorNumber: 5))
            }
            outcome = .read(bytes(of: file.name, offset, count))
        case .writeCheckpoint(let file, let bytes):
            try create(file.temporaryName)
            try write(file.temporaryName, 0, bytes)
            try sync(file.temporaryName)
            try step()
            names_[file.name] = names_.removeValue(forKey: file.temporaryName)
            nameChanges.append(.rename(file.temporaryName, file.name))
            try syncDirectory()
        case .delete(let files):
            for file in files {
                try step()
                names_[file.name] = nil
                nameChanges.append(.unlink(file.name))
            }
            try syncDirectory()
        case .measureSpace: break
        }
        return DiskCompletion(token: operation.token, outcome: outcome, space: space)
    }

    private mutating func step() throws {
        guard stepsLeft > 0 else { throw PowerCut() }
        stepsLeft -= 1
    }

    private mutating func create(_ name: String) throws {
        try step()
        nextInode += 1
        inodes[nextInode] = Inode()
        names_[name] = nextInode
        nameChanges.append(.link(name, nextInode))
    }

    private mutating func write(_ name: String, _ offset: Int, _ bytes: [UInt8]) throws {
        try step()
        guard let id = names_[name] else { return }
        inodes[id]?.pending.append((offset, bytes))
        inodes[id]?.current.overlay(bytes, at: offset)
    }

    private mutating func sync(_ name: String) throws {
        try step()
        syncs += 1
        guard let id = names_[name], var inode = inodes[id] else { return }
        inode.durable = inode.current
        inode.pending = []
        inodes[id] = inode
    }

    private mutating func syncDirectory() throws {
        try step()
        if skipsDirectorySync { return }
        durableNames = names_
        nameChanges = []
    }

    // MARK: Power cuts

    /// What is there after the power came back.
    mutating func losePower(_ dice: inout Dice) {
        // Names change in order, and any number of the changes may have reached the disk.
        for change in nameChanges.prefix(dice.below(nameChanges.count + 1)) {
            switch change {
            case .link(let name, let id): durableNames[name] = id
            case .unlink(let name): durableNames[name] = nil
            case .rename(let old, let new): durableNames[new] = durableNames.removeValue(forKey: old)
            }
        }
        nameChanges = []
        names_ = durableNames
        let leavesGarbage = dice.below(4) == 0
        for id in inodes.keys.sorted() {
            guard var inode = inodes[id] else { continue }
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
            inode.current = inode.durable
            inodes[id] = inode
        }
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

    mutating func size(of name: String) throws(StoreReadFailure) -> Int { content(name).count }

    mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8] {
        reads += 1
        return bytes(of: name, offset, count)
    }

    mutating func makeDurable(_ name: String) throws(StoreReadFailure) {
        do { try sync(name) } catch { throw StoreReadFailure(name: name, errorNumber: 5) }
    }

    mutating func makeDirectoryDurable() throws(StoreReadFailure) {
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
