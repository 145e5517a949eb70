import MQTT

extension MessageQueue {
    /// One delivery in memory: 16 bytes, because there may be many.
    struct Entry {
        /// `.zero` once the Record is no longer needed, or when there is none.
        var position: Position
        /// Of the message: topic, properties and payload.
        var bytes: UInt32
        var qos: QoS
        var phase: Phase
        private var marks: Marks

        init(
            position: Position, bytes: UInt32, qos: QoS, phase: Phase, isStray: Bool, isElided: Bool = false,
            isBooked: Bool = false
        ) {
            self.position = position
            self.bytes = bytes
            self.qos = qos
            self.phase = phase
            marks = []
            self.isStray = isStray
            self.isElided = isElided
            self.isBooked = isBooked
        }

        /// No index of the log has it, so it stays in memory.
        var isStray: Bool {
            get { marks.contains(.stray) }
            set { marks.set(.stray, newValue) }
        }
        /// It is settled, and no Record could say otherwise: its own was never written.
        var isElided: Bool {
            get { marks.contains(.elided) }
            set { marks.set(.elided, newValue) }
        }
        /// It is settled by Record, or needs none.
        var isBooked: Bool {
            get { marks.contains(.booked) }
            set { marks.set(.booked, newValue) }
        }
        /// PUBREL is sent for it although PUBREC never came: its message was damaged after it may have been sent.
        var isUnreadable: Bool { phase == .received && position != .zero }
    }

    /// Together they take one byte.
    private struct Marks: OptionSet {
        let rawValue: UInt8
        static let stray = Marks(rawValue: 1)
        static let elided = Marks(rawValue: 2)
        static let booked = Marks(rawValue: 4)

        mutating func set(_ mark: Marks, _ isSet: Bool) {
            if isSet { insert(mark) } else { remove(mark) }
        }
    }
}
