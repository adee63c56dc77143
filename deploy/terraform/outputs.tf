output "security_groups" {
  description = "Security group of each role: give it to the machines of that role."
  value       = { for role, group in aws_security_group.role : role => group.id }
}

output "subnets" {
  description = "Private subnets of each segment."
  value       = { for segment in keys(local.segments) : segment => [for key, subnet in aws_subnet.this : subnet.id if local.subnets[key].segment == segment] }
}

output "edge_target_group" {
  description = "Where the edge's Envoys register."
  value       = aws_lb_target_group.edge.arn
}

output "door" {
  description = "Name of the load balancer; point the hosts' DNS at it."
  value       = aws_lb.this.dns_name
}
