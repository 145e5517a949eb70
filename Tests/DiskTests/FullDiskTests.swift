import Foundation
import GatewayCore
import Testing

@testable import Disk
@testable import Journal

@Suite("A full disk", .serialized)
struct FullDiskTests {
    static func plan() -> JournalPlan {
        var plan = JournalPlan()
        plan.segmentBytes = 256 << 10
        plan.reserveBytes = 256 << 10
        return plan
    }

    static func pressures(_ host: Host) -> [Bool] {
        host.events.compactMap { if case .pressure(let presses) = $0 { presses } else { nil } }
    }

    @Test(
        "P4: others fill the disk: pressure, the reserve is used, and with room again everything goes on, without a restart"
    )
    func full() throws {
        guard let disk = SmallDisk(megabytes: 24) else { return }
        let path = disk.mountPoint + "/state"
        var count = 0
        do {
            let host = try Host(path, plan: Self.plan())
            func append(_ n: Int) throws {
                for _ in 0..<n {
                    count += 1
                    host.append("t/\(count)")
                }
                try host.settle(after: 5000)
            }
            try append(20)
            try host.settle()
            #expect(FileManager.default.fileExists(atPath: path + "/reserve"))
            #expect(Self.pressures(host).isEmpty)
            let ballast = disk.mountPoint + "/ballast"
            try SmallDisk.fill(ballast)
            // Until the batch that finds no block, and some more on the reserve.
            var rounds = 0
            while FileManager.default.fileExists(atPath: path + "/reserve"), rounds < 400 {
                try append(20)
                rounds += 1
            }
            #expect(!FileManager.default.fileExists(atPath: path + "/reserve"))
            #expect(Self.pressures(host) == [true] && !host.journal.hasFailed)
            try append(5)
            #expect(
                host.events.contains {
                    if case .durable(Position(UInt64(count))) = $0 { true } else { false }
                })
            try FileManager.default.removeItem(atPath: ballast)
            for _ in 0..<3 { try host.settle(after: 60_000) }
            #expect(Self.pressures(host) == [true, false])
            #expect(FileManager.default.fileExists(atPath: path + "/reserve"))
            try append(20)
            host.thread.stop()
        }
        let host = try Host(path, plan: Self.plan())
        #expect(host.topics == (1...count).map { "t/\($0)" })
        #expect(!host.store.recovered.report.isDamaged)
        host.thread.stop()
    }

    @Test("P4: a disk on which nothing is left at all, not even the reserve, is waited for")
    func nothingLeft() throws {
        guard let disk = SmallDisk(megabytes: 24) else { return }
        let path = disk.mountPoint + "/state"
        do {
            var plan = Self.plan()
            plan.reserveBytes = 0
            let host = try Host(path, plan: plan)
            host.append("t/1")
            try host.settle()
            let ballast = disk.mountPoint + "/ballast"
            try SmallDisk.fill(ballast)
            var count = 1
            func isAllDurable() -> Bool {
                host.events.contains {
                    if case .durable(Position(UInt64(count))) = $0 { true } else { false }
                }
            }
            while isAllDurable(), count < 500 {
                count += 20
                for n in (count - 19)...count { host.append("t/\(n)") }
                try host.settle(after: 5000)
            }
            #expect(!isAllDurable() && !host.journal.hasFailed && Self.pressures(host) == [true])
            try FileManager.default.removeItem(atPath: ballast)
            for _ in 0..<3 { try host.settle(after: 60_000) }
            #expect(isAllDurable() && Self.pressures(host) == [true, false])
            host.thread.stop()
        }
        let host = try Host(path)
        #expect(host.topics.count > 20 && !host.store.recovered.report.isDamaged)
        host.thread.stop()
    }

    @Test("ext4 has its segments used again, in place")
    func recycling() throws {
        guard let disk = SmallDisk(megabytes: 32) else { return }
        let path = disk.mountPoint + "/state"
        func names(_ prefix: String) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasPrefix(prefix) }.sorted()
        }
        do {
            let host = try Host(path, plan: Self.plan())
            #expect(host.store.recovered.recycles)
            for round in 0..<2 {
                for n in 0..<600 { host.append("\(round)/\(n)") }
                try host.settle()
                try host.checkpoint(NothingOwed())
            }
            let free = try names("free-")
            #expect(!free.isEmpty && free.count <= 6)
            for n in 0..<600 { host.append("again/\(n)") }
            try host.settle()
            #expect(try names("free-").count < free.count)
            host.thread.stop()
        }
        let host = try Host(path, plan: Self.plan())
        #expect(host.topics == (0..<600).map { "again/\($0)" })
        #expect(host.store.recovered.report == RecoveryReport())
        host.thread.stop()
    }

    @Test("P7: a commit in a segment that is used again costs the device a page and next to nothing else")
    func commitCost() throws {
        guard let disk = SmallDisk(megabytes: 48) else { return }
        var plan = Self.plan()
        plan.segmentBytes = 1 << 20
        let host = try Host(disk.mountPoint + "/state", plan: plan)
        func commit(_ count: Int) throws -> Int {
            let before = try disk.bytesWritten()
            for n in 0..<count {
                host.append("t/\(n)")
                try host.settle()
            }
            guard let before, let after = try disk.bytesWritten() else { return 0 }
            return (after - before) / count
        }
        let appended = try commit(200)
        for n in 0..<4500 {
            host.append("fill/\(n)")
            if n % 100 == 0 { try host.settle() }
        }
        try host.settle()
        try host.checkpoint(NothingOwed())
        host.append("one more")
        try host.checkpoint(NothingOwed())
        // The active segment is one that was appended to; the next is not.
        let names = try FileManager.default.contentsOfDirectory(atPath: disk.mountPoint + "/state")
        #expect(names.contains { $0.hasPrefix("free-") })
        for n in 0..<1000 { host.append("fill/\(n)") }
        try host.settle()
        _ = try commit(5)
        let recycled = try commit(200)
        print("device bytes a commit: \(appended) appended, \(recycled) in place")
        #expect(recycled < 6000)
        host.thread.stop()
    }

    @Test("a file system without barriers is warned of")
    func noBarrier() throws {
        guard let disk = SmallDisk(megabytes: 16, options: ",nobarrier") else { return }
        let store = try DiskStore.open(path: disk.mountPoint + "/state") { _, _ in }
        #expect(store.warnings.contains { $0.contains("nobarrier") && $0.contains("ext4") })
    }
}

@Suite("Mount options")
struct MountOptionsTests {
    static let text = """
        22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw,errors=remount-ro
        30 22 179:3 / /var/lib/tide\\040gate rw,relatime shared:2 master:1 - f2fs /dev/mmcblk0p3 rw,nobarrier,mode=adaptive
        31 22 0:25 / /run rw - tmpfs tmpfs rw,size=100k
        bad line
        """

    @Test("are those of the device, with or without optional fields")
    func parsing() throws {
        let card = try #require(MountOptions(mountInfo: Self.text, major: 179, minor: 3))
        #expect(
            card.fileSystem == "f2fs" && card.options == ["rw", "relatime", "nobarrier", "mode=adaptive"])
        #expect(MountOptions(mountInfo: Self.text, major: 0, minor: 25)?.fileSystem == "tmpfs")
        #expect(MountOptions(mountInfo: Self.text, major: 8, minor: 1) == nil)
        #expect(MountOptions(mountInfo: "", major: 8, minor: 1) == nil)
    }

    @Test(
        "that make a sync mean nothing are warned of; others are not",
        arguments: [
            ("nobarrier", 1), ("barrier=0", 1), ("fsync_mode=nobarrier", 1), ("data=writeback", 1),
            ("journal_async_commit", 1), ("data=ordered", 0), ("fsync_mode=strict", 0), ("barrier=1", 0),
        ])
    func risky(option: String, count: Int) {
        let text = "1 0 8:1 / / rw,\(option) - ext4 /dev/sda1 rw"
        let warnings = MountOptions(mountInfo: text, major: 8, minor: 1)?.warnings(path: "/state")
        #expect(warnings?.count == count)
        #expect(warnings?.allSatisfy { $0.contains("/state") && $0.contains(option) } == true)
    }
}

@Suite("Quarantine")
struct QuarantineTests {
    @Test("P6: damaged pages are copied once, and the rest is served")
    func copies() throws {
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            for n in 1...3 {
                host.append("t/\(n)")
                try host.settle()
            }
            try host.close()
        }
        let segment = scratch.path + "/" + StoreFile.segment(1).name
        var bytes = try Data(contentsOf: URL(fileURLWithPath: segment))
        bytes[2 * pageBytes + 100] ^= 1
        try bytes.write(to: URL(fileURLWithPath: segment))
        let copy = "\(StoreFile.segment(1).name).\(2 * pageBytes)-\(3 * pageBytes)"
        for _ in 0..<2 {
            let host = try Host(scratch.path)
            #expect(host.topics == ["t/1", "t/3"])
            let kept = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/quarantine")
            #expect(kept == [copy])
            let content = try Data(contentsOf: URL(fileURLWithPath: scratch.path + "/quarantine/" + copy))
            #expect(content == bytes[2 * pageBytes..<3 * pageBytes])
            host.thread.stop()
        }
    }

    @Test("the oldest go when there is too much")
    func bounded() throws {
        let scratch = Scratch()
        let directory = try Directory(path: scratch.path)
        let inside = scratch.path + "/quarantine"
        try FileManager.default.createDirectory(atPath: inside, withIntermediateDirectories: false)
        for n in 0..<4 {
            let path = "\(inside)/old-\(n)"
            #expect(FileManager.default.createFile(atPath: path, contents: Data(count: 3000)))
            let age = Date(timeIntervalSince1970: Double(1_000_000 + n))
            try FileManager.default.setAttributes([.modificationDate: age], ofItemAtPath: path)
        }
        #expect(
            FileManager.default.createFile(atPath: scratch.path + "/seg", contents: Data(count: 8192)))
        let problems = Quarantine(directory: directory, bytesMax: 12_000).keep([
            .init(file: "seg", bytes: 4096..<8192), .init(file: "gone", bytes: 0..<4096),
        ])
        #expect(problems.count == 1 && problems[0].contains("gone"))
        let left = try FileManager.default.contentsOfDirectory(atPath: inside).sorted()
        #expect(left == ["old-2", "old-3", "seg.4096-8192"])
    }
}
