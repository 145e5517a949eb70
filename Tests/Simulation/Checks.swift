import GatewayCore
import Journal

// What must be true of the gateway whatever its peers say.
extension World {
    /// After each recovery: a second one finds the same, and everything is accounted for (promise P3).
    func check(_ recovered: RecoveredLog, _ state: borrowing DurableState) {
        var copy = disk
        copy.stepsLeft = .max
        copy.fault = nil
        var audit = Audit()
        var there: Set<Position> = []
        var again = DurableState()
        let inspection: Inspection
        do {
            inspection = try Inspection.inspect(
                &copy,
                recovered: { record, position in
                    again.apply(record, at: position)
                    audit.recovered(record)
                },
                found: {
                    audit.inLog($0.record)
                    if trace.isReadable { there.insert($0.position) }
                })
        } catch { return violate("cannot be inspected: \(error)") }
        if inspection.log != recovered { violate("a second recovery finds another log") }
        if again.balance != state.balance { violate("a second recovery comes to other books") }
        guard !cast.isDamaged else { return }
        let report = recovered.report
        // A torn footer behind the end of a segment whose successor is gone looks like damage, in which nothing was lost.
        if !report.lost.isEmpty || !report.setAside.isEmpty || report.formatIsDamaged {
            violate("damage where there was none: \(report)")
        }
        let result = audit.result(again)
        if !result.isEven {
            again.snapshot { record in
                guard trace.isReadable, case .queue(let queue) = record else { return }
                let missing = queue.entries.compactMap(\.position).filter { !there.contains($0) }
                trace.say("queue of \(queue.session) lacks \(missing)", at: now)
            }
            violate("the books do not balance: \(result.lines.filter { !$0.isEven }) total \(result.total)")
        }
    }

    /// What the disk keeps of what the cloud would not have.
    func deadLetters(_ state: borrowing DurableState) -> [MessageName] {
        var copy = disk
        copy.stepsLeft = .max
        var records: [MessageRecord] = []
        do {
            _ = try Inspection.inspect(
                &copy,
                found: { found in
                    if case .message(let record) = found.record, record.moved?.refusal != nil {
                        records.append(record)
                    }
                })
        } catch { return [] }
        return records.compactMap { record in
            let isKept = record.targets.contains { target in
                guard let delivery = target.delivery, state.needs(target.session, delivery),
                    case .deadLetters = state[target.session]?.owner
                else { return false }
                return true
            }
            return isKept ? MessageName(payload: record.message.payload[...]) : nil
        }
    }

    /// For people: what keeps which part of the log.
    func tellWhatIsOwed(_ state: borrowing DurableState) {
        trace.say("    \(state.balance)", at: now)
        for id in state.sessionIDs {
            guard let session = state[id], session.queue.queuedCount > 0 else { continue }
            trace.say("    \(session.owner) has \(session.queue.queuedCount) waiting", at: now)
        }
        var copy = disk
        copy.stepsLeft = .max
        let log: RecoveredLog
        do { log = try Inspection.inspect(&copy).log } catch { return }
        for stretch in log.stretches {
            let count = state.owedCount(in: stretch)
            trace.say("    \(stretch.first.number)...\(stretch.last.number): \(count) owed", at: now)
        }
    }

    /// Once a second: a backlog lies on flash, not in memory (promise P5).
    func checkMemory() {
        // What is not written yet is nowhere else.
        guard let host, host.isAllDurable else { return }
        let limits = plan.gateway.limits
        // Beside what the plan allows there is what was sent and is not acknowledged, and what came with the last one read.
        let inFlightMax = max(
            limits.inFlightMax, plan.uplinks.map(\.inFlightMaximum).max() ?? 0,
            plan.gateway.profiles.compactMap(\.receiveMaximum).max() ?? 0)
        let most =
            limits.residentBytesMax + limits.bytesPerRoundMax + (Int(inFlightMax) + 2) * Self.messageBytesMax
        for id in host.gateway.state.sessionIDs {
            guard let session = host.gateway.state[id], session.isPersistent else { continue }
            let bytes = session.queue.residentBytes
            if bytes > most {
                violate("\(session.owner) has \(bytes) bytes in memory, and \(most) are allowed")
            }
        }
    }

    /// With topic and properties, about.
    private static let messageBytesMax = 3_300

    /// At the end: flash was spent knowingly (promise P7).
    func checkFlash() {
        let commits = plan.journal.commits
        let seconds = Int(now / 1_000_000) + 1
        // What may be committed at once, and then by the clock; whoever connects or subscribes waits for no token, and
        // neither does what a full batch or a lazy one carries.
        let batchesMax =
            (statistics.lives + 1) * (Int(commits.burst) + 20)
            + seconds * (Int(commits.commitsPerSecond) + Int(1000 / commits.handshakeMilliseconds) + 1)
            + 8 * statistics.connections
        if statistics.batches > batchesMax {
            violate("\(statistics.batches) commits in \(seconds) s, and \(batchesMax) were to be expected")
        }
        // Checkpoints, compaction, headers and footers all cost a share of what is logged, and each start something.
        let bytesMax = 5 * statistics.batchBytes + (statistics.lives + 1) * (192 << 10)
        if disk.bytesWritten > bytesMax {
            violate(
                "\(disk.bytesWritten) bytes written for \(statistics.batchBytes) of batches, \(bytesMax) were to be expected"
            )
        }
    }
}

extension DiskOperation.Action {
    /// For people.
    var words: String {
        switch self {
        case .createSegment(let file, _): "create \(file.name)"
        case .reuseSegment(let file, let from, _): "reuse \(from.name) as \(file.name)"
        case .write(let file, let offset, let bytes): "write \(file.name) \(offset)+\(bytes.count)"
        case .writeFooter(let file, let offset, let bytes): "footer \(file.name) \(offset)+\(bytes.count)"
        case .read(let file, let offset, let count): "read \(file.name) \(offset)+\(count)"
        case .writeCheckpoint(let file, let bytes): "checkpoint \(file.name) \(bytes.count)"
        case .writePart(let file, let offset, let bytes): "part \(file.name) \(offset)+\(bytes.count)"
        case .publish(let file, let from): "publish \(from.name) as \(file.name)"
        case .delete(let files): "delete \(files.map(\.name))"
        case .retire(let segments): "retire \(segments)"
        case .makeReserve(_, let bytes): "reserve \(bytes)"
        case .measureSpace: "measure"
        }
    }
}

/// Bytes on a connection, for people: the types of the packets that begin in them, as far as it can be told.
enum PacketWords {
    private static let names = [
        "-", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
        "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
    ]

    static func of(_ bytes: [UInt8]) -> String {
        var words: [String] = []
        var at = 0
        while at < bytes.count, words.count < 8 {
            let header = bytes[at]
            var length = 0
            var shift = 0
            var next = at + 1
            while next < bytes.count, shift < 28 {
                length |= Int(bytes[next] & 0x7F) << shift
                shift += 7
                next += 1
                if bytes[next - 1] & 0x80 == 0 { break }
            }
            let body = Array(bytes[min(next, bytes.count)..<min(next + length, bytes.count)])
            words.append(describe(header, body))
            at = next + length
        }
        return "\(bytes.count) bytes: " + words.joined(separator: " ")
    }

    private static func describe(_ header: UInt8, _ body: [UInt8]) -> String {
        let type = Int(header >> 4)
        var text = names[type]
        switch type {
        case 3:
            let qos = header >> 1 & 3
            text += "(q\(qos)\(header & 8 != 0 ? " dup" : "")\(header & 1 != 0 ? " retain" : "")"
            guard body.count >= 2 else { return text + "…)" }
            let topicEnd = 2 + Int(body[0]) << 8 + Int(body[1])
            if qos > 0, body.count >= topicEnd + 2 {
                text += " id \(Int(body[topicEnd]) << 8 + Int(body[topicEnd + 1]))"
            }
            if let mark = body.firstIndex(of: UInt8(ascii: "#")) {
                let digits = { (byte: UInt8) in byte >= 48 && byte < 58 }
                var from = mark
                while from > 0, digits(body[from - 1]) { from -= 1 }
                let to = body[(mark + 1)...].firstIndex { !digits($0) } ?? body.count
                text += " " + String(decoding: body[from..<to], as: UTF8.self)
            }
            return text + ")"
        case 4, 5, 6, 7, 8, 9, 10, 11:
            guard body.count >= 2 else { return text }
            let reason = body.count > 2 && type < 8 ? " \(body[2])" : ""
            return text + "(\(Int(body[0]) << 8 + Int(body[1]))\(reason))"
        case 2: return body.count >= 2 ? "CONNACK(\(body[0]) \(body[1]))" : text
        default: return text
        }
    }
}
