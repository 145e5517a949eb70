import GatewayCore
import Journal

/// A disk in memory that forgets like a real one.
///
/// What was written and not synced may survive a power cut in part, sector by sector or page by page, in any order,
/// torn or as garbage; the size of a file may reach the disk before its content, with zeros or with what somebody else
/// once wrote there; a name that was created, renamed or removed is only sure once the directory was synced. The power
/// may fail before and after every step of an operation, and each step may fail. A sync that fails leaves pages that
/// are clean and not on the disk: they are read back until the cache is dropped, and the next sync succeeds.
package struct SimulatedDisk {
    struct Inode {
        var durable: [UInt8] = []
        var current: [UInt8] = []
        var pending: [(offset: Int, bytes: [UInt8])] = []
    }
    private enum NameChange {
        case link(String, Int)
        case unlink(String)
        case rename(String, String, Int)
    }
    fileprivate enum Stop: Error {
        case powerCut
        case refused(Int32)
    }

    private(set) var inodes: [Inode] = []
    private var names_: [String: Int] = [:]
    private var durableNames: [String: Int] = [:]
    private var nameChanges: [NameChange] = []
    /// Of a file that was deleted: found where nothing was written yet.
    private var grave: [UInt8] = []

    /// Steps until the power fails.
    package var stepsLeft = Int.max
    package private(set) var isPowerless = false
    package var fault: DiskFault?
    /// Bytes that all files together may have; nil for no bound.
    package var capacity: Int?
    /// What is left out, to see that it is noticed.
    package var omission: DiskOmission?

    // MARK: What it has done

    package private(set) var steps = 0
    package private(set) var syncs = 0
    package private(set) var bytesWritten = 0
    package private(set) var strikes = 0
    /// Files that were written to or synced again after a sync of theirs failed: there must be none.
    package private(set) var abused: [String] = []
    /// By name, whether it happened to a process before this one: then it may be used again by one that believes nothing
    /// of it, and still not be appended to.
    private var distrusted: [String: Bool] = [:]
    private var dice: Dice
    private let store: StoreID

    package init(formatted store: StoreID, dice: Dice) {
        self.dice = dice
        self.store = store
        put(StoreFile.format.name, StoreFormat(store: store, createdWallMilliseconds: 0).encoded)
    }

    package var space: FileSystemSpace? {
        guard let capacity else { return nil }
        return FileSystemSpace(free: UInt64(max(0, capacity - usedBytes)), total: UInt64(capacity))
    }

    /// - Complexity: O(files)
    package var usedBytes: Int {
        var sum = 0
        for (_, id) in names_ { sum += inodes[id].current.count }
        return sum
    }

    // MARK: Operations, step by step

    /// - Returns: nil when the power failed meanwhile.
    package mutating func perform(_ operation: DiskOperation) -> DiskCompletion? {
        do throws(Stop) {
            let outcome = try carryOut(operation.action)
            return DiskCompletion(token: operation.token, outcome: outcome, space: space)
        } catch {
            switch error {
            case .powerCut: return nil
            case .refused(let number):
                return DiskCompletion(
                    token: operation.token, outcome: .failed(errorNumber: number), space: space)
            }
        }
    }

    private mutating func carryOut(_ action: DiskOperation.Action) throws(Stop) -> DiskCompletion.Outcome {
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
            try write(file.name, offset, bytes)
        case .read(let file, let offset, let count):
            try step(.read)
            return .read(bytes(of: file.name, offset, count))
        case .writeCheckpoint(let file, let bytes): try replace(file, bytes)
        case .makeReserve(let file, let bytes): try replace(file, Array(repeating: 0xA5, count: bytes))
        case .writePart(let file, let offset, let bytes):
            if offset == 0 {
                try create(file.name)
                distrusted[file.name] = nil
            }
            try write(file.name, offset, bytes)
            try sync(file.name)
        case .publish(let file, let part):
            try rename(part.name, file.name)
            try syncDirectory()
        case .delete(let files):
            for file in files where names_[file.name] != nil { try unlink(file.name) }
            try syncDirectory()
        case .retire(let segments):
            for id in segments { try rename(StoreFile.segment(id).name, StoreFile.free(id).name) }
            try syncDirectory()
        case .measureSpace: break
        }
        return .done
    }

    private mutating func replace(_ file: StoreFile, _ bytes: [UInt8]) throws(Stop) {
        // The disk opens it whether it is there or not; a new inode is as good here.
        try create(file.temporaryName)
        distrusted[file.temporaryName] = nil
        try write(file.temporaryName, 0, bytes)
        try sync(file.temporaryName)
        try rename(file.temporaryName, file.name)
        try syncDirectory()
    }

    private mutating func step(_ kind: DiskFault.Step) throws(Stop) {
        guard stepsLeft > 0, !isPowerless else {
            isPowerless = true
            throw .powerCut
        }
        stepsLeft -= 1
        steps += 1
        guard var fault else { return }
        let strikes = fault.strikes(kind)
        self.fault = fault.times > 0 ? fault : nil
        guard strikes else { return }
        self.strikes += 1
        throw .refused(fault.errorNumber)
    }

    private mutating func create(_ name: String) throws(Stop) {
        try step(.create)
        inodes.append(Inode())
        names_[name] = inodes.count - 1
        nameChanges.append(.link(name, inodes.count - 1))
    }

    private mutating func rename(_ old: String, _ new: String) throws(Stop) {
        try step(.rename)
        guard let id = names_.removeValue(forKey: old) else { throw .refused(2) }
        names_[new] = id
        if let isOld = distrusted.removeValue(forKey: old), !isOld || !new.hasPrefix("free-") {
            distrusted[new] = isOld
        }
        nameChanges.append(.rename(old, new, id))
    }

    private mutating func unlink(_ name: String) throws(Stop) {
        try step(.unlink)
        guard let id = names_.removeValue(forKey: name) else { return }
        grave = inodes[id].current
        distrusted[name] = nil
        nameChanges.append(.unlink(name))
    }

    private mutating func write(_ name: String, _ offset: Int, _ bytes: [UInt8]) throws(Stop) {
        if distrusted[name] != nil { abused.append(name) }
        var written = bytes
        var refused: Stop?
        do throws(Stop) { try step(.write) } catch .refused(let number) {
            // A short write, of which part is there.
            written = Array(bytes.prefix(dice.below(bytes.count + 1)))
            refused = .refused(number)
        }
        guard let id = names_[name] else { throw .refused(2) }
        if refused == nil, let capacity {
            let room = max(0, capacity - usedBytes)
            let end = inodes[id].current.count + room
            if offset + bytes.count > end {
                written = Array(bytes.prefix(max(0, end - offset)))
                refused = .refused(DiskFault.noSpace)
                strikes += 1
            }
        }
        if refused != nil { distrusted[name] = false }
        if !written.isEmpty {
            bytesWritten += written.count
            inodes[id].pending.append((offset, written))
            inodes[id].current.overlay(written, at: offset)
        }
        if let refused { throw refused }
    }

    private mutating func sync(_ name: String) throws(Stop) {
        if distrusted[name] != nil { abused.append(name) }
        do throws(Stop) { try step(.sync) } catch .refused(let number) {
            // Any part of it reached the disk, or all; the pages are clean now, and nobody writes them again.
            distrusted[name] = false
            if let id = names_[name] { settle(id) }
            throw .refused(number)
        }
        syncs += 1
        if omission == .sync { return }
        if let id = names_[name] { makeAllDurable(id) }
    }

    private mutating func makeAllDurable(_ id: Int) {
        let writes = inodes[id].pending
        inodes[id].pending = []
        for write in writes { inodes[id].durable.overlay(write.bytes, at: write.offset) }
    }

    private mutating func syncDirectory() throws(Stop) {
        try step(.syncDirectory)
        syncs += 1
        if omission == .directorySync { return }
        durableNames = names_
        nameChanges = []
    }

    // MARK: Power cuts

    /// What is there after the power came back.
    ///
    /// - Parameter harmsNeighbours: pages beside those that were being written may be garbage, as on NAND.
    /// - Returns: what was durable and is damaged.
    package mutating func losePower(harmsNeighbours: Bool) -> [DiskDamage] {
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
        var damage: [DiskDamage] = []
        for name in fileNames() {
            guard let id = names_[name] else { continue }
            if harmsNeighbours, dice.below(2) == 0 { damage += harmNeighbours(id, name) }
        }
        for id in inodes.indices {
            if !inodes[id].pending.isEmpty { settle(id) }
            inodes[id].current = inodes[id].durable
        }
        forget()
        distrusted = [:]
        isPowerless = false
        stepsLeft = .max
        return damage
    }

    /// The process ended and the power did not fail: what was written is in the cache.
    package mutating func processEnded() {
        distrusted = distrusted.filter { !$0.key.hasPrefix("free-") }.mapValues { _ in true }
        isPowerless = false
        stepsLeft = .max
    }

    /// Lets go of the content of files that have no name any more.
    private mutating func forget() {
        var isNamed = [Bool](repeating: false, count: inodes.count)
        for (_, id) in names_ { isNamed[id] = true }
        for (_, id) in durableNames { isNamed[id] = true }
        for id in inodes.indices where !isNamed[id] && !inodes[id].durable.isEmpty { inodes[id] = Inode() }
    }

    /// Lets any part of what was written and not synced reach the disk, or garbage in its place.
    private mutating func settle(_ id: Int) {
        let writes = inodes[id].pending
        inodes[id].pending = []
        let manner = dice.below(8)
        let unit = dice.coin() ? 512 : 4096
        if dice.below(3) == 0 { growFirst(id, writes.map { $0.offset + $0.bytes.count }.max() ?? 0) }
        for write in writes {
            // In order up to some byte, or any unit of it.
            let inOrder = manner < 3 ? dice.below(write.bytes.count + 1) : nil
            let keepsAll = dice.below(4) == 0
            for start in stride(from: 0, to: write.bytes.count, by: unit) {
                let end = min(start + unit, write.bytes.count)
                if let inOrder, !keepsAll {
                    guard start < inOrder else { break }
                    inodes[id].durable.overlay(
                        Array(write.bytes[start..<min(end, inOrder)]), at: write.offset + start)
                } else if keepsAll || dice.coin() {
                    inodes[id].durable.overlay(Array(write.bytes[start..<end]), at: write.offset + start)
                } else if manner == 7 {
                    inodes[id].durable.overlay(noise(end - start), at: write.offset + start)
                }
            }
        }
    }

    /// The size of a file reaches the disk before what it is to hold.
    private mutating func growFirst(_ id: Int, _ size: Int) {
        let from = inodes[id].durable.count
        guard size > from else { return }
        var filling = [UInt8](repeating: 0, count: size - from)
        if dice.coin(), !grave.isEmpty {
            for i in filling.indices where from + i < grave.count { filling[i] = grave[from + i] }
        }
        inodes[id].durable.append(contentsOf: filling)
    }

    private mutating func noise(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            withUnsafeBytes(of: dice.next().littleEndian) { bytes.append(contentsOf: $0) }
        }
        return Array(bytes.prefix(count))
    }

    // MARK: Damage

    /// A durable page beside one that was being written becomes garbage.
    private mutating func harmNeighbours(_ id: Int, _ name: String) -> [DiskDamage] {
        guard let write = inodes[id].pending.last else { return [] }
        let offset =
            dice.coin()
            ? write.offset / 4096 * 4096 - 4096 : (write.offset + write.bytes.count + 4095) / 4096 * 4096
        guard offset >= 0, offset < inodes[id].durable.count else { return [] }
        let end = min(offset + 4096, inodes[id].durable.count)
        return [spoil(id, name, offset..<end, with: noise(end - offset))]
    }

    /// A bit turns round, or a page reads as zeros, while nobody looks.
    ///
    /// - Returns: nil when there is nothing to rot.
    package mutating func rots() -> DiskDamage? {
        let names = fileNames().filter { content($0).count > 0 }
        guard !names.isEmpty else { return nil }
        let name = names[dice.below(names.count)]
        guard let id = names_[name] else { return nil }
        let size = inodes[id].durable.count
        guard size > 0 else { return nil }
        let at = dice.below(size)
        if dice.coin() {
            let flipped = inodes[id].durable[at] ^ UInt8(1 << dice.below(8))
            return spoil(id, name, at..<at + 1, with: [flipped])
        }
        let page = at / 4096 * 4096
        let end = min(page + 4096, size)
        return spoil(id, name, page..<end, with: [UInt8](repeating: 0, count: end - page))
    }

    private mutating func spoil(_ id: Int, _ name: String, _ range: Range<Int>, with bytes: [UInt8])
        -> DiskDamage
    {
        let damage = DiskDamage(file: name, range: range, before: Array(inodes[id].durable[range]))
        inodes[id].durable.overlay(bytes, at: range.lowerBound)
        inodes[id].current = inodes[id].durable
        return damage
    }

    /// The disk as it would be if it had not been damaged a moment ago.
    func repaired(_ damage: [DiskDamage]) -> SimulatedDisk {
        var disk = self
        for place in damage.reversed() {
            guard let id = names_[place.file] else { continue }
            disk.inodes[id].durable.overlay(place.before, at: place.range.lowerBound)
            disk.inodes[id].current = disk.inodes[id].durable
        }
        return disk
    }

    // MARK: What is looked at and put in order

    private mutating func put(_ name: String, _ bytes: [UInt8]) {
        inodes.append(Inode(durable: bytes, current: bytes))
        names_[name] = inodes.count - 1
        durableNames[name] = inodes.count - 1
    }

    package func content(_ name: String) -> [UInt8] { names_[name].map { inodes[$0].current } ?? [] }

    package func fileNames() -> [String] { names_.keys.sorted() }

    private func bytes(of name: String, _ offset: Int, _ count: Int) -> [UInt8] {
        guard let id = names_[name] else { return [] }
        let end = min(offset + count, inodes[id].current.count)
        return offset < end ? Array(inodes[id].current[offset..<end]) : []
    }

    /// As the store does after recovery; false when the power failed.
    package mutating func removeForTidiness(_ names: [String]) -> Bool {
        do throws(Stop) {
            for name in names { try unlink(name) }
            if !names.isEmpty { try syncDirectory() }
        } catch { return error.isHarmless }
        return true
    }

    /// As the store does before recovery: where there is no log that could say whose it is, and `FORMAT` cannot be read,
    /// it begins anew. False when the power failed.
    package mutating func beginStore() -> Bool {
        let holdsLog = fileNames().contains {
            StoreFile(name: $0)?.mayHoldLog(beginning: Array(content($0).prefix(pageBytes + 1))) == true
        }
        if holdsLog { return true }
        do { _ = try StoreFormat(decoding: content(StoreFile.format.name)) } catch .unknownFeatures {
            return true
        } catch {
            return rewriteFormat(store)
        }
        return true
    }

    /// As the store does when `FORMAT` cannot be read; false when the power failed.
    package mutating func rewriteFormat(_ store: StoreID) -> Bool {
        do throws(Stop) {
            try replace(.format, StoreFormat(store: store, createdWallMilliseconds: 0).encoded)
        } catch { return error.isHarmless }
        return true
    }
}

/// A step of the disk that is left out though it says it was done.
package enum DiskOmission: Hashable, Sendable, CaseIterable { case sync, directorySync }

extension SimulatedDisk.Stop {
    fileprivate var isHarmless: Bool {
        switch self {
        case .powerCut: false
        case .refused: true
        }
    }
}

// MARK: Recovery looks at it

extension SimulatedDisk: StoreReader {
    package mutating func names() -> [String] { fileNames() }

    package mutating func size(of name: String) throws(StoreReadFailure) -> Int { content(name).count }

    package mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8]
    {
        bytes(of: name, offset, count)
    }

    package mutating func makeDurable(_ name: String) throws(StoreReadFailure) {
        // A new process opens it anew, and drops what the cache has.
        distrusted[name] = nil
        do throws(Stop) { try sync(name) } catch {
            throw StoreReadFailure(name: name, errorNumber: DiskFault.broken)
        }
        guard let id = names_[name] else { return }
        // The size is no page of the cache: with a sync that succeeds it reaches the disk, whatever is lost of the rest.
        let lacking = inodes[id].current.count - inodes[id].durable.count
        if lacking > 0 { inodes[id].durable += [UInt8](repeating: 0, count: lacking) }
        inodes[id].current = inodes[id].durable
    }

    package mutating func makeDirectoryDurable() throws(StoreReadFailure) {
        do throws(Stop) { try syncDirectory() } catch {
            throw StoreReadFailure(name: ".", errorNumber: DiskFault.broken)
        }
    }
}

extension [UInt8] {
    /// Writes `bytes` at `offset`, with zeros before it where nothing was.
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
