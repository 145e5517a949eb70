import Foundation
import Workbench

/// No queue is to be full before its row is over.
private let roomy = ["limits: { queue-messages: 10000000 }"]

/// A sensor that publishes one message a second, one at a time, while nobody takes them: its PUBACK should come in
/// the time of one commit, not in a window's.
enum LoneSensor {
    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row("One sensor, one QoS 1 message a second, receiver away")
        let gateway = try Gateway(binary, in: place, settings: roomy)
        try gateway.start()
        defer { gateway.kill() }
        try Collector.subscribe(port: gateway.port)
        var plan = Publishers.Plan(port: gateway.port)
        plan.count = 1
        plan.window = 1
        plan.payloadBytes = 200
        plan.perSecond = 1
        let publishers = try Publishers(plan)
        var bare: [Double] = []
        let file = open(place.file("bare"), O_RDWR | O_CREAT, 0o600)
        defer { close(file) }
        var page = [UInt8](repeating: 7, count: 4096)
        // What is compared overwrites what is there: the extent is written and synced once before.
        for i in 0..<64 { pwrite(file, page, page.count, off_t(i * 4096)) }
        fsync(file)
        for i in 0..<30 {
            publishers.run(total: 1, seconds: 1)
            // A disk that has rested takes two or three times as long as one that has just written: both rest.
            usleep(450_000)
            page[0] = UInt8(i)
            let began = monotonicSeconds()
            pwrite(file, page, page.count, off_t(i * 4096))
            fdatasync(file)
            bare.append(monotonicSeconds() - began)
            usleep(450_000)
        }
        let puback = median(publishers.latencies)
        row.note("4 KiB write and fdatasync, median", milliseconds(median(bare)))
        row.note("PUBACK, median", milliseconds(puback))
        row.goal("PUBACK / bare write", puback / median(bare), atMost: 3)
        return row
    }

    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        return sorted.isEmpty ? .nan : sorted[sorted.count / 2]
    }

    static func milliseconds(_ seconds: Double) -> String { String(format: "%.2f ms", seconds * 1000) }
}

/// 100 publishers with 20 messages in flight each, all of it queued for a Session that is away.
enum Ingest {
    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row("Durable QoS 1 ingest: 100 publishers, 20 in flight, 256 bytes, receiver away")
        let messages = 2_000_000
        var disk: LoopDisk?
        do { disk = try LoopDisk(in: place, megabytes: 2048) } catch {
            row.note("device bytes", "not measured: \(error)")
        }
        defer { disk?.remove() }
        let home = try disk.map { try Workplace("ingest", under: $0.mountPoint) } ?? place
        let gateway = try Gateway(binary, in: place, stateIn: home, settings: roomy)
        try gateway.start()
        defer { gateway.kill() }
        guard let pid = gateway.pid else { throw WorkbenchError("the gateway is gone") }
        try Collector.subscribe(port: gateway.port)
        let publishers = try Publishers(Publishers.Plan(port: gateway.port))
        publishers.run(total: 100_000)
        let (cpu, written) = (Gauges.cpuSeconds(pid), disk?.bytesWritten() ?? 0)
        let began = monotonicSeconds()
        let count = publishers.run(total: messages)
        let seconds = monotonicSeconds() - began
        let spent = Gauges.cpuSeconds(pid) - cpu
        row.goal("messages a second", Double(count) / seconds, atLeast: 150_000)
        row.goal("CPU seconds per million messages", spent * 1e6 / Double(count), atMost: 3)
        if let disk {
            let bytes = Double(disk.bytesWritten() - written) / Double(count * 256)
            row.goal("device bytes per payload byte", bytes, atMost: 1.3)
        }
        row.note("resident", megabytes(Gauges.resident(pid).now))
        gateway.kill()
        try compare(&row, place, messages: messages / 4)
        return row
    }

    /// The same load on the mosquitto that is installed, which acknowledges before anything is on a disk.
    private static func compare(_ row: inout Row, _ place: Workplace, messages: Int) throws {
        var options = CloudBroker.Options()
        options.persistence = true
        options.autosaveSeconds = 1800
        let broker = try CloudBroker(in: place, name: "mosquitto", options: options)
        try broker.start()
        defer { broker.kill() }
        guard let pid = broker.pid else { return }
        try Collector.subscribe(port: broker.port)
        let publishers = try Publishers(Publishers.Plan(port: broker.port))
        let cpu = Gauges.cpuSeconds(pid)
        let began = monotonicSeconds()
        let count = publishers.run(total: messages, seconds: 60)
        let seconds = monotonicSeconds() - began
        row.note(
            "the installed mosquitto, nothing durable",
            String(
                format: "%.0f messages a second, %.2f CPU seconds per million, resident %@",
                Double(count) / seconds, (Gauges.cpuSeconds(pid) - cpu) * 1e6 / Double(count),
                megabytes(Gauges.resident(pid).now)))
    }

    static func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
}

/// SIGKILL in the middle of the load, eight times: whatever was acknowledged must be delivered afterwards.
enum Kills {
    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row("SIGKILL in mid-load, eight times")
        let gateway = try Gateway(binary, in: place, settings: roomy)
        try gateway.start()
        defer { gateway.kill() }
        try Collector.subscribe(port: gateway.port)
        var numbers = [UInt64](repeating: 0, count: 100)
        // What was sent and not acknowledged before a kill may have been kept or not.
        var owed: [[ClosedRange<UInt64>]] = Array(repeating: [], count: 100)
        for _ in 0..<8 {
            let publishers = try Publishers(Publishers.Plan(port: gateway.port), numbers: numbers)
            let end = monotonicSeconds() + Double.random(in: 0.3...1.5)
            publishers.run(seconds: 10) {
                if monotonicSeconds() > end { gateway.kill() }
                return false
            }
            for (index, last) in publishers.acknowledged.enumerated() where last > numbers[index] {
                owed[index].append(numbers[index] + 1...last)
            }
            numbers = publishers.sent
            try gateway.start()
        }
        let acknowledged = owed.joined().reduce(0) { $0 + $1.count }
        let collector = try Collector(port: gateway.port, publishers: 100)
        collector.take(.max, patience: 5)
        row.note("acknowledged", "\(acknowledged)")
        row.goal("lost", Double(collector.lost(of: owed)), atMost: 0, digits: 0)
        row.goal("out of order", Double(collector.outOfOrder), atMost: 0, digits: 0)
        return row
    }
}

/// Millions of messages for a Session that is away: memory, the time of a restart, and all of them afterwards.
enum Backlog {
    static func measure(_ binary: String, _ place: Workplace, messages: Int) throws -> Row {
        var row = Row("\(messages) QoS 1 messages of 200 bytes for a Session that is away")
        let gateway = try Gateway(binary, in: place, settings: roomy)
        try gateway.start()
        defer { gateway.kill() }
        try Collector.subscribe(port: gateway.port)
        var plan = Publishers.Plan(port: gateway.port)
        plan.payloadBytes = 200
        let publishers = try Publishers(plan)
        let began = monotonicSeconds()
        publishers.run(total: messages)
        row.note("filled in", String(format: "%.1f s", monotonicSeconds() - began))
        let acknowledged = publishers.acknowledged
        let filled = gateway.pid.map { Gauges.resident($0).peak } ?? 0
        row.goal("resident at most while filling, MB", Double(filled) / 1e6, atMost: 48, digits: 1)

        gateway.kill()
        let restarted = monotonicSeconds()
        try gateway.start(within: 120)
        let collector = try Collector(port: gateway.port, publishers: plan.count)
        row.goal("SIGKILL to CONNACK", monotonicSeconds() - restarted, atMost: 2, unit: " s")
        var peak = 0
        let draining = monotonicSeconds()
        collector.take(Int(acknowledged.reduce(0, +))) {
            peak = max(peak, gateway.pid.map { Gauges.resident($0).peak } ?? 0)
        }
        let seconds = monotonicSeconds() - draining
        let drained = Int(collector.fresh.reduce(0, +))
        row.note("drained", String(format: "%.0f messages a second", Double(drained) / seconds))
        row.goal("resident at most after the restart, MB", Double(peak) / 1e6, atMost: 48, digits: 1)
        row.goal(
            "lost", Double(collector.lost(of: acknowledged.map { $0 > 0 ? [1...$0] : [] })), atMost: 0,
            digits: 0)
        row.goal("out of order", Double(collector.outOfOrder), atMost: 0, digits: 0)
        row.note("repeated", "\(collector.repeated)")
        return row
    }
}

/// What reaches the flash at 100 messages a second of 200 bytes: with the cloud away, and with the cloud
/// acknowledging after 60 ms.
enum Flash {
    private static let secondsUp = 60.0
    /// Long enough to fill a segment of 4 MiB, so that the change to the next is in it.
    private static let secondsDown = 128.0
    private static let rate = 100.0

    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row(
            "Bytes that reach the flash: 100 messages a second, 200 bytes, topics of 40, `balanced`")
        let disk: LoopDisk
        do { disk = try LoopDisk(in: place, megabytes: 1024) } catch {
            row.note("device bytes", "not measured: \(error)")
            return row
        }
        defer { disk.remove() }
        let broker = try CloudBroker(in: place)
        try broker.start()
        defer { broker.kill() }
        let link = try DelayedLink(to: broker.port)
        let home = try Workplace("flash", under: disk.mountPoint)
        let gateway = try Gateway(
            binary, in: place, stateIn: home,
            uplinks: [.init(port: link.port, routes: [#"{ out: "bench/#", to: "cloud/#", qos: 1 }"#])],
            settings: roomy)
        try gateway.start()
        defer { gateway.kill() }
        // Segments that were written and are free again are what a gateway in service has.
        var plan = Publishers.Plan(port: gateway.port)
        for _ in 0..<5 {
            try Publishers(plan).run(total: 60_000)
            try awaitEmptyQueue(of: gateway, at: broker)
        }
        link.delay(by: 0.03)
        // After such a flood it would not hope for a minute that messages need not be written, and soon make a
        // checkpoint that frees what is counted here.
        _ = gateway.stop()
        try gateway.start()
        sleep(10)

        plan.count = 10
        plan.payloadBytes = 200
        plan.topicBytes = 40
        plan.perSecond = rate
        let first = try StoreCounts(binary, gateway)
        let (up, upCount) = try publish(plan, disk, for: secondsUp)
        let second = try StoreCounts(binary, gateway)
        let written = Double(second.messages - first.messages)
        row.goal("link up, 60 ms round trip: messages written, %", written / upCount * 100, atMost: 2)
        row.note("link up: device bytes a message", String(format: "%.0f", up / upCount))
        broker.kill()
        sleep(2)
        let third = try StoreCounts(binary, gateway)
        let (down, downCount) = try publish(plan, disk, for: secondsDown)
        let recordBytes = try StoreCounts(binary, gateway).recordBytes(since: third)
        row.goal("link down: device bytes / record bytes", down / (downCount * recordBytes), atMost: 1.4)
        row.note("link down: record bytes a message", String(format: "%.0f", recordBytes))
        row.note("link down: device bytes a message", String(format: "%.0f", down / downCount))
        return row
    }

    /// What `journal stats` says of the running gateway's store.
    private struct StoreCounts {
        /// Written, over its whole life.
        let messages: Int
        /// What is in the files of them, and the bytes of their Records.
        private let kept: Int
        private let keptBytes: Int

        init(_ binary: String, _ gateway: Gateway) throws {
            let text = try LoopDisk.run(binary, "journal", "stats", "--json", "--state", gateway.statePath)
            guard let whole = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any],
                let life = whole["overLife"] as? [String: Any], let messages = life["messages"] as? Int,
                let records = whole["records"] as? [String: Any]
            else { throw WorkbenchError("journal stats says \(text)") }
            self.messages = messages
            let kind = records["message"] as? [String: Any]
            kept = kind?["count"] as? Int ?? 0
            keptBytes = kind?["bytes"] as? Int ?? 0
        }

        /// Of a message's Record, on average.
        func recordBytes(since before: StoreCounts) throws -> Double {
            guard kept - before.kept == messages - before.messages, kept > before.kept else {
                throw WorkbenchError("segments were freed meanwhile, or nothing was written")
            }
            return Double(keptBytes - before.keptBytes) / Double(kept - before.kept)
        }
    }

    private static func publish(
        _ plan: Publishers.Plan, _ disk: LoopDisk, for seconds: Double
    ) throws -> (bytes: Double, count: Double) {
        let publishers = try Publishers(plan)
        publishers.run(seconds: 5)
        let written = disk.bytesWritten()
        let count = publishers.run(seconds: seconds)
        _ = publishers.finish(within: 5)
        return (Double(disk.bytesWritten() - written), Double(count))
    }

    /// Waits until a message published now reaches the cloud, and so everything before it has.
    private static func awaitEmptyQueue(of gateway: Gateway, at broker: CloudBroker) throws {
        let cloud = try Wire(port: broker.port, clientIdentifier: "bench-watch", cleanSession: true)
        try cloud.subscribe("cloud/last", qos: 0)
        let sensor = try Wire(port: gateway.port, clientIdentifier: "bench-last", cleanSession: true)
        let body = Wire.string("bench/last") + [0, 1]
        sensor.send([0x32] + Wire.length(body.count) + body)
        let end = monotonicSeconds() + 300
        while monotonicSeconds() < end {
            var poll = pollfd(fd: cloud.descriptor, events: Int16(POLLIN), revents: 0)
            _ = Glibc.poll(&poll, 1, 500)
            guard cloud.read() else { throw WorkbenchError("the cloud closed the connection") }
            if !cloud.pending.isEmpty { return }
        }
        throw WorkbenchError("the uplink does not drain")
    }
}
