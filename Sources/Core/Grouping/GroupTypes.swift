package import ServingTypes

/// What the controller knows of one worker.
package struct GroupWorker: Hashable, Sendable {
    package var description: InstanceDescription
    package var status: InstanceStatus
    /// Registered, leased, healthy and not draining: it may be given work.
    package var isServing: Bool

    package var instance: InstanceID { description.instance }

    package init(description: InstanceDescription, status: InstanceStatus, isServing: Bool) {
        self.description = description
        self.status = status
        self.isServing = isServing
    }
}

/// An assignment and who is to be told of it.
package struct GroupOrder: Hashable, Sendable {
    package var instance: InstanceID
    package var assign: Assign

    package init(instance: InstanceID, assign: Assign) {
        self.instance = instance
        self.assign = assign
    }
}

/// The time as people count it.
package struct WallClock: Hashable, Sendable {
    /// Milliseconds since 1970; 0 if there is no calendar.
    package var unixMilliseconds: UInt64
    /// Minutes since midnight, local time; range 0…1439.
    package var minuteOfDay: Int

    package init(unixMilliseconds: UInt64 = 0, minuteOfDay: Int = 0) {
        self.unixMilliseconds = unixMilliseconds
        self.minuteOfDay = minuteOfDay
    }
}
